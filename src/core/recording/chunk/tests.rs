//! Laws of chunk objects.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::codec::tests::any_kind;
use super::super::event::EventKind;
use super::*;

fn chain() -> Chain {
    let session: SessionId = "019aa5c7-d3c0-7000-8000-000000000001".parse().unwrap();
    Chain { session, started_at: session.timestamp(), previous: Digest::of(b"header"), next: 3 }
}

fn sealed(events: &[(u64, EventKind)]) -> Sealed {
    let mut at = events.first().map_or(0, |event| event.0);
    let mut open = Open::new(3, Duration::from_micros(at));
    for (number, (delta, kind)) in events.iter().enumerate() {
        at += if number == 0 { 0 } else { *delta };
        open.push(Duration::from_micros(at), kind).unwrap();
    }
    chain().seal(open).unwrap()
}

fn head_of(object: &[u8], change: impl Fn(&mut Head)) -> Vec<u8> {
    let mut head = Head::parse(object).unwrap();
    change(&mut head);
    head.to_bytes()
}

proptest! {
    #[test]
    fn what_is_sealed_is_read_back(events in vec((0u64..1 << 40, any_kind()), 0..8)) {
        let object = sealed(&events).object;
        let chunk = Chunk::parse(&object).unwrap();
        let read: Vec<Event> = chunk.events().map(|event| event.unwrap()).collect();
        prop_assert_eq!(read.iter().map(|event| &event.kind).collect::<Vec<_>>(), events.iter().map(|event| &event.1).collect::<Vec<_>>());
        let total: u64 = events.iter().map(|event| event.0).sum();
        prop_assert_eq!(read.last().map(|event| micros(event.at)), events.first().map(|_| total));
        prop_assert_eq!(chain().reopen(object.clone()).unwrap().object, object);
    }

    #[test]
    fn a_damaged_object_never_panics_and_gives_no_more_than_its_head_says(
        events in vec((0u64..1 << 40, any_kind()), 0..8), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..5), cut in any::<prop::sample::Index>(),
    ) {
        let mut object = sealed(&events).object;
        for (at, byte) in changes {
            let at = at.index(object.len());
            object[at] = byte;
        }
        for object in [&object[..], &object[..cut.index(object.len())]] {
            if let Ok(chunk) = Chunk::parse(object) {
                prop_assert!(chunk.payload.len() <= MAX_PAYLOAD);
                prop_assert!(chunk.events().filter(Result::is_ok).count() <= events.len());
            }
        }
    }
}

#[test]
fn a_bomb_is_given_up_on_at_the_length_in_the_head() {
    let mut object = head_of(&sealed(&[]).object, |head| head.payload = 1000);
    object.truncate(HEAD_LEN);
    let object = compress(&vec![0; 64 << 20], object).unwrap();
    assert!(object.len() < 64 * 1024, "{}", object.len());
    assert!(matches!(Chunk::parse(&object), Err(Error::Frame)));
}

#[test]
fn a_head_that_tells_of_more_than_a_chunk_may_hold_is_refused_before_anything_is_allocated() {
    for payload in [u32::try_from(MAX_PAYLOAD).unwrap() + 1, u32::MAX] {
        let object = head_of(&sealed(&[]).object, |head| head.payload = payload);
        assert!(matches!(Chunk::parse(&object), Err(Error::Head(_))));
    }
}
