//! AdmissionReview v1: what the API server asks a webhook, and what it is told.
//!
//! Own types over raw bytes: `object`, `oldObject` and `options` stay as they came, because a typed round trip
//! drops fields and adds others. [`review`] reads, [`subject`] turns a review into an
//! [`Action`](crate::core::action::Action), [`answer`] and [`mutation`] write, [`registration`] says what the API server
//! should send at all, [`suspended`] knows how an object is created suspended and freed again. HTTP is the business of `service/webhook`.

pub mod answer;
pub mod difference;
pub mod mutation;
pub mod registration;
pub mod review;
pub mod sound;
pub mod strangers;
pub mod subject;
pub mod suspended;
