//! When certificates are renewed, and in which order, so that at every moment whoever verifies by the published
//! bundle can verify what any replica serves. An authority is replaced in three steps, each an overlap apart: the
//! new one joins the bundle, then signs the leaf, then the old one leaves. Pure: the caller keeps the material where
//! only one of several replicas can write each step. Main function: [`Material::next`].

use std::time::Duration;

use jiff::Timestamp;

use super::{Error, Material, mint};
use crate::core::keys::Secret;

/// A certificate is renewed in the last part of its life: 1 / this.
const LAST_PART: u32 = 6;

/// How long certificates live, and how far apart the steps of a rotation are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of an authority.
    pub authority: Duration,
    /// Of a serving certificate.
    pub leaf: Duration,
    /// How long everybody gets to notice a step: replicas, the API server, other readers of the bundle.
    pub overlap: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        let day = Duration::from_secs(86_400);
        Self { authority: day * 3650, leaf: day * 365, overlap: day / 24 }
    }
}

/// What a change was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A new leaf of the same authority.
    Renewed,
    /// A new authority joined the bundle; the old one still signs.
    Announced,
    /// The new authority has signed the leaf.
    Switched,
    /// The old authority left the bundle.
    Retired,
    /// Everything is new, as nothing of the old was valid any more.
    Anew,
}

impl Material {
    /// What should take this material's place now, if anything. `published` says whether a bundle is what the
    /// API server verifies by.
    ///
    /// # Errors
    /// Where a certificate is damaged or none can be minted.
    pub fn next(
        &self,
        hosts: &[String],
        lifetimes: &Lifetimes,
        now: Timestamp,
        published: impl Fn(&str) -> bool,
    ) -> Result<Option<(Self, Step)>, Error> {
        if self.authority_key.is_none() {
            return Ok(None);
        }
        let authorities = mint::split(&self.authority);
        let newest = authorities.first().ok_or_else(|| Error::Certificate("there is no authority".to_owned()))?;
        let (signer, leaf) = (mint::read(newest)?, mint::read(&self.certificate)?);
        let soon = |end: Timestamp, lifetime: Duration| end <= later(now, lifetime / LAST_PART);
        let settled = later(self.changed, lifetimes.overlap) <= now;
        if signer.ends <= now {
            return Self::mint(hosts, lifetimes, now).map(|fresh| Some((fresh, Step::Anew)));
        }
        if leaf.issuer != signer.subject {
            // A leaf that is over serves nobody: then there is nothing to wait for.
            let ready = (settled && published(&self.authority)) || leaf.ends <= now;
            if !ready {
                return Ok(None);
            }
            let switched = Self { changed: now, ..self.signed(newest, hosts, lifetimes.leaf, now)? };
            return Ok(Some((switched, Step::Switched)));
        }
        if soon(leaf.ends, lifetimes.leaf.min(lifetimes.authority)) && leaf.ends < signer.ends
            || !hosts.iter().all(|host| leaf.hosts.contains(host))
        {
            return Ok(Some((self.signed(newest, hosts, lifetimes.leaf, now)?, Step::Renewed)));
        }
        if authorities.len() > 1 {
            let alone = Self { authority: newest.clone(), changed: now, ..self.copy() };
            return Ok(settled.then_some((alone, Step::Retired)));
        }
        if soon(signer.ends, lifetimes.authority) {
            let (authority, next_key) = mint::authority(now, lifetimes.authority)?;
            let bundle = format!("{authority}{newest}");
            let announced =
                Self { authority: bundle, authority_key: Some(Secret::new(next_key)), changed: now, ..self.copy() };
            return Ok(Some((announced, Step::Announced)));
        }
        Ok(None)
    }

    /// The same authorities with a leaf signed by the newest.
    fn signed(&self, newest: &str, hosts: &[String], leaf: Duration, now: Timestamp) -> Result<Self, Error> {
        let Some(key) = &self.authority_key else { return Ok(self.copy()) };
        let (certificate, leaf_key) = mint::leaf((newest, key.expose()), hosts, now, leaf)?;
        Ok(Self { certificate, key: Secret::new(leaf_key), ..self.copy() })
    }

    fn copy(&self) -> Self {
        Self {
            authority: self.authority.clone(),
            authority_key: self.authority_key.as_ref().map(|key| Secret::new(key.expose().clone())),
            certificate: self.certificate.clone(),
            key: Secret::new(self.key.expose().clone()),
            changed: self.changed,
        }
    }
}

fn later(now: Timestamp, span: Duration) -> Timestamp {
    now.checked_add(span).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIMES: Lifetimes = Lifetimes {
        authority: Duration::from_secs(6000),
        leaf: Duration::from_secs(600),
        overlap: Duration::from_secs(10),
    };

    fn hosts() -> Vec<String> {
        vec!["kustody.kustody-system.svc".to_owned()]
    }

    fn start() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn at(seconds: u64) -> Timestamp {
        later(start(), Duration::from_secs(seconds))
    }

    fn step(material: &Material, seconds: u64, published: bool) -> Option<(Material, Step)> {
        material.next(&hosts(), &LIFETIMES, at(seconds), |_| published).unwrap()
    }

    #[test]
    fn a_leaf_is_renewed_in_its_last_part_and_the_authority_stays() {
        let first = Material::mint(&hosts(), &LIFETIMES, start()).unwrap();
        assert!(step(&first, 499, true).is_none());
        let (second, what) = step(&first, 501, true).unwrap();
        assert_eq!((what, &second.authority), (Step::Renewed, &first.authority));
        assert_ne!(second.certificate, first.certificate);
        assert!(step(&second, 502, true).is_none());
    }

    #[test]
    fn an_authority_is_replaced_in_three_steps_an_overlap_apart() {
        let first = Material::mint(&hosts(), &LIFETIMES, at(4000)).unwrap();
        let lives = Lifetimes { leaf: Duration::from_secs(6000), ..LIFETIMES };
        let first = Material { certificate: first.certificate.clone(), ..first };
        let next = |material: &Material, seconds, published| {
            material.next(&hosts(), &lives, at(seconds), |_| published).unwrap()
        };
        let (renewed, _) = next(&first, 4001, true).unwrap();
        let (announced, what) = next(&renewed, 9001, true).unwrap();
        assert_eq!(what, Step::Announced);
        assert!(announced.authority.ends_with(&renewed.authority) && announced.certificate == renewed.certificate);
        assert!(next(&announced, 9005, true).is_none(), "the overlap is not over");
        assert!(next(&announced, 9012, false).is_none(), "the API server does not know the new one yet");
        let (switched, what) = next(&announced, 9012, true).unwrap();
        assert_eq!((what, &switched.authority), (Step::Switched, &announced.authority));
        assert!(next(&switched, 9015, true).is_none());
        let (retired, what) = next(&switched, 9023, true).unwrap();
        assert_eq!((what, mint::split(&retired.authority).len()), (Step::Retired, 1));
        assert_eq!(retired.certificate, switched.certificate);
        assert!(next(&retired, 9024, true).is_none());
    }

    #[test]
    fn what_ended_long_ago_is_made_anew() {
        let first = Material::mint(&hosts(), &LIFETIMES, start()).unwrap();
        let (fresh, what) = step(&first, 100_000, false).unwrap();
        assert_eq!(what, Step::Anew);
        assert_ne!(fresh.authority, first.authority);
        assert!(step(&fresh, 100_001, true).is_none());
    }

    #[test]
    fn a_new_host_needs_a_new_leaf() {
        let first = Material::mint(&hosts(), &LIFETIMES, start()).unwrap();
        let more = [hosts(), vec!["127.0.0.1".to_owned()]].concat();
        let (second, what) = first.next(&more, &LIFETIMES, at(1), |_| true).unwrap().unwrap();
        assert_eq!(what, Step::Renewed);
        assert!(second.next(&more, &LIFETIMES, at(2), |_| true).unwrap().is_none());
    }
}
