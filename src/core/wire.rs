//! Bytes to frames and back: the protocols Kubernetes streams travel in.
//!
//! Every codec here is sans-I/O: it owns its buffer and its limits, takes bytes in any chunking and
//! gives frames. Nothing here opens a socket, reads a clock or decides anything.

pub mod channels;
pub mod handshake;
pub mod resize;
pub mod spdy;
pub mod websocket;

/// A port as Kubernetes takes it in a query or a stream's header: decimal digits, leading zeros allowed, 1 to 65535.
#[must_use]
pub fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0 && text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_port_is_digits_from_1_to_65535() {
        let taken = ["1", "07777", "65535"].map(super::port);
        assert_eq!(taken, [Some(1), Some(7777), Some(65535)]);
        for refused in ["", "0", "+80", "-1", " 80", "80 ", "0x50", "65536", "٨٠"] {
            assert_eq!(super::port(refused), None, "{refused}");
        }
    }
}
