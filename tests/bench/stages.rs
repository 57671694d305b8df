//! Where the time of one allowed review goes, step by step, without any transport: `cargo bench --bench kustody -- stages`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use kustody::command::policy::source::Source;
use kustody::core::admission::{answer::Answer, review, sound, subject};
use kustody::core::audit::describe::Stamp;
use kustody::core::audit::{Decided, Effect, Entry, Kind, segment};
use kustody::core::policy::{Circumstances, Content, Facts, decide};

const REVIEW: &str = include_str!("review.json");
const SPELL: Duration = Duration::from_millis(400);
const ROUNDS: usize = 5;

pub(crate) fn measure() -> anyhow::Result<()> {
    let snapshot = Source::of_defaults()?.snapshot()?;
    let body = REVIEW.as_bytes();
    let request = review::decode(body)?;
    let class = snapshot.classify(&request.identity()).context("nobody's review")?.name().clone();
    let action = subject::action(&request, class.clone())?;
    let facts = Facts { action: &action, content: Content::of_review(&request) };
    let now = || Circumstances::at(Timestamp::now());
    let decision = decide(&snapshot, &facts, &now());
    let stamp = || Stamp {
        id: uuid::Uuid::now_v7().into(),
        time: Timestamp::now(),
        latency_us: 100,
        cluster: "bench",
        replica: "bench",
    };
    let described =
        || Entry::blank(Kind::Review, Effect::Admitted, &stamp()).about(&action).changing(&action, &request);
    let entry = described().decided(Some(Decided::of(&decision)));
    let line = entry.to_line()?;
    let mut steps: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    println!(
        "\none review of {} bytes, by {}/{}, its log entry {} bytes",
        body.len(),
        decision.policy,
        decision.rule,
        line.len()
    );
    println!("| step | microseconds |\n|---|---|");
    for _ in 0..ROUNDS {
        let mut step = |name, what: &dyn Fn()| steps.entry(name).or_default().push(each(what));
        step("0 for comparison: the body as a tree", &|| {
            drop(black_box(serde_json::from_slice::<serde_json::Value>(body)))
        });
        step("1 decoded", &|| drop(black_box(review::decode(body))));
        step("2 found sound", &|| {
            black_box(request.object.map(|raw| sound::check(raw.get())).is_some());
        });
        step("3 whose it is", &|| {
            black_box(snapshot.classify(&request.identity()).is_some());
        });
        step("4 the action", &|| drop(black_box(subject::action(&request, class.clone()))));
        step("5 decided", &|| drop(black_box(decide(&snapshot, &facts, &now()))));
        step("6 log entry, with the masked object", &|| drop(black_box(described())));
        step("7 its line", &|| drop(black_box(entry.to_line())));
        step("8 its checksum", &|| {
            black_box(segment::prefix(&line));
        });
        step("9 the answer", &|| drop(black_box(Answer::allow().encode(&request.uid))));
    }
    for (name, mut times) in steps {
        times.sort_by(f64::total_cmp);
        println!("| {name} | {:.1} |", times[times.len() / 2] * 1e6);
    }
    Ok(())
}

fn each(what: &dyn Fn()) -> f64 {
    let (started, mut count) = (Instant::now(), 0_u32);
    while started.elapsed() < SPELL {
        for _ in 0..16 {
            what();
        }
        count += 16;
    }
    started.elapsed().as_secs_f64() / f64::from(count)
}
