//! Pure rooms: no I/O, no clock, no async, no logging. Time is an argument.
