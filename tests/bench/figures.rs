//! Figures of a comparison: what a spell of load gave, medians over rounds, and ratios to the first lane taken round by
//! round. Main type: [`Table`].

use std::fmt;
use std::time::Duration;

/// What a lane gave in one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spell {
    /// Requests a second.
    pub(crate) rate: f64,
    /// Median and 99th percentile of the answer time, seconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Processor time the server took for a request, seconds; unknown where its process is not ours to look at.
    pub(crate) cpu: f64,
}

impl Spell {
    /// From the answer times of a spell.
    pub(crate) fn of(mut times: Vec<Duration>, took: Duration, cpu: Option<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let place = ((times.len().saturating_sub(1)) as f64 * share).round() as usize;
            times.get(place).map_or(f64::NAN, Duration::as_secs_f64)
        };
        let count = times.len() as f64;
        let cpu = cpu.map_or(f64::NAN, |cpu| cpu.as_secs_f64() / count);
        Self { rate: count / took.as_secs_f64(), p50: at(0.5), p99: at(0.99), cpu }
    }
}

/// All rounds of all lanes.
pub(crate) struct Table {
    title: String,
    lanes: Vec<(String, Vec<Spell>)>,
}

impl Table {
    pub(crate) fn new<'a>(title: &str, lanes: impl Iterator<Item = &'a str>) -> Self {
        Self { title: title.to_owned(), lanes: lanes.map(|name| (name.to_owned(), Vec::new())).collect() }
    }

    pub(crate) fn add(&mut self, lane: usize, spell: Spell) {
        if let Some((_, spells)) = self.lanes.get_mut(lane) {
            spells.push(spell);
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.title)?;
        writeln!(
            f,
            "| lane | requests/s | p50 ms | p99 ms | CPU ms each | rate to floor | p50 to floor | p99 to floor |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        let floor = self.lanes.first().map(|(_, spells)| spells.clone()).unwrap_or_default();
        for (name, spells) in &self.lanes {
            let of = |value: fn(&Spell) -> f64| middle(spells.iter().map(value).collect());
            let ratio = |value: fn(&Spell) -> f64| {
                middle(spells.iter().zip(&floor).map(|(own, floor)| value(own) / value(floor)).collect())
            };
            writeln!(
                f,
                "| {name} | {:.0} | {:.3} | {:.3} | {} | {:.2} | {:.2} | {:.2} |",
                of(|spell| spell.rate),
                of(|spell| spell.p50) * 1e3,
                of(|spell| spell.p99) * 1e3,
                shown(of(|spell| spell.cpu) * 1e3),
                ratio(|spell| spell.rate),
                ratio(|spell| spell.p50),
                ratio(|spell| spell.p99),
            )?;
        }
        Ok(())
    }
}

fn shown(milliseconds: f64) -> String {
    if milliseconds.is_nan() { "–".to_owned() } else { format!("{milliseconds:.3}") }
}

/// The median of some times, seconds.
pub(crate) fn median(times: Vec<Duration>) -> f64 {
    middle(times.iter().map(Duration::as_secs_f64).collect())
}

/// The median.
pub(crate) fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
