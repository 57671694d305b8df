//! A change of one field, in the CEL of a ValidatingAdmissionPolicy: as `policy/change.rs` tells it, element by element.
//!
//! The value before and the value after are two optionals that go down the path together. At the elements of a list or a
//! map the expression asks for some pair of them; CEL has no `let`, so that `[value].exists(name, …)` names a value.

use super::{literal, quote};
use crate::core::policy::document::ChangeSpec;
use crate::core::policy::path::Path;
use crate::core::policy::quantity;
use std::fmt::Write;

/// Most `[*]` and `*` of a path: each makes the expression some times as long.
const NESTED: usize = 3;
/// Elements that have no names of their own are compared one by one, so many at most; longer lists count as changed.
const POSITIONS: usize = 64;
/// Largest number that a quantity is multiplied by, one addition a time.
const FACTOR: i128 = 400;

/// When the change happens, or why that cannot be said.
pub(super) fn of_change(change: &ChangeSpec) -> Result<String, String> {
    let path = Path::parse(&change.path).map_err(|problem| format!("a path {problem}"))?;
    let steps: Vec<Option<&str>> = path.steps().collect();
    if steps.iter().filter(|step| step.is_none()).count() > NESTED {
        return Err(format!("a change looks more than {NESTED} levels deep into lists and maps"));
    }
    let leaf = leaf(change)?;
    let root = |object: &str| format!("({object} == null ? optional.none() : optional.of({object}))");
    Ok(below(&steps, 0, (&root("oldObject"), &root("object")), &leaf))
}

type Leaf = Box<dyn Fn(&str, &str) -> String>;

/// The test of what lies at the end of the path.
fn leaf(change: &ChangeSpec) -> Result<Leaf, String> {
    let is = |value: &str| format!("{value}.orValue(dyn(null)) != null");
    if change.removed {
        return Ok(Box::new(move |before, after| format!("({} && !({}))", is(before), is(after))));
    }
    if change.added {
        return Ok(Box::new(move |before, after| format!("(!({}) && {})", is(before), is(after))));
    }
    if change.changed {
        return Ok(Box::new(|before, after| format!("({before}.orValue(dyn(null)) != {after}.orValue(dyn(null)))")));
    }
    if let Some(value) = &change.set {
        if value.is_null() {
            return Err("a change sets nothing".to_owned());
        }
        let value = literal(value);
        return Ok(Box::new(move |before, after| {
            format!("({after}.orValue(dyn(null)) == {value} && {before}.orValue(dyn(null)) != {value})")
        }));
    }
    match (&change.increased_by, &change.decreased_by) {
        (Some(amount), _) => step(amount, "n.sub(o)"),
        (None, Some(amount)) => step(amount, "o.sub(n)"),
        (None, None) => Err("a change asks for nothing".to_owned()),
    }
}

/// Whether a quantity moved by so much: `o` is the old one, `n` the new one, `s` the step.
fn step(amount: &str, step: &str) -> Result<Leaf, String> {
    let reached = match amount.strip_suffix('%') {
        None => format!("s.compareTo(quantity({})) >= 0", quote(amount)),
        Some(percent) => {
            let (whole, parts) =
                ratio(percent).ok_or("a change compares with a share that takes too long to compute")?;
            let old = "(o.isLessThan(quantity('0')) ? quantity('0').sub(o) : o)";
            format!("[{old}].exists(p, {}.compareTo({}) >= 0)", times("s", parts), times("p", whole))
        }
    };
    let moved = format!("[{step}].exists(s, s.isGreaterThan(quantity('0')) && {reached})");
    Ok(Box::new(move |before, after| {
        format!(
            "[{before}.orValue(dyn(null))].exists(x, [{after}.orValue(dyn(null))].exists(y, x != null && y != null && \
             [quantity(string(x))].exists(o, [quantity(string(y))].exists(n, {moved}))))"
        )
    }))
}

/// A percentage as a fraction in lowest terms.
fn ratio(percent: &str) -> Option<(i128, i128)> {
    let (part, whole) = (quantity::parse(percent)?, 100 * quantity::ONE);
    let divisor = common(part, whole);
    let fraction = (part / divisor, whole / divisor);
    (fraction.0 <= FACTOR && fraction.1 <= FACTOR).then_some(fraction)
}

fn common(a: i128, b: i128) -> i128 {
    if b == 0 { a.max(1) } else { common(b, a % b) }
}

/// There is no multiplication of quantities.
fn times(name: &str, count: i128) -> String {
    let mut out = name.to_owned();
    for _ in 1..count {
        out.push_str(&format!(".add({name})"));
    }
    out
}

fn below(steps: &[Option<&str>], depth: usize, (before, after): (&str, &str), leaf: &Leaf) -> String {
    let members: String = steps.iter().map_while(|step| *step).map(|member| format!("[?{}]", quote(member))).collect();
    let (before, after) = (format!("{before}{members}"), format!("{after}{members}"));
    let rest = steps.iter().position(Option::is_none).and_then(|each| steps.get(each + 1..));
    let Some(rest) = rest else { return leaf(&before, &after) };
    let pair = |old: &str, new: &str| below(rest, depth + 1, (old, new), leaf);
    format!(
        "[{before}.orValue(dyn(null))].exists(b{depth}, [{after}.orValue(dyn(null))].exists(a{depth}, {} || {}))",
        of_lists(depth, &pair),
        of_maps(depth, &pair)
    )
}

/// Elements belong together by their names where all have one of their own, else by position.
fn of_lists(depth: usize, pair: &dyn Fn(&str, &str) -> String) -> String {
    let (l, m, e, f, i) =
        (format!("l{depth}"), format!("m{depth}"), format!("e{depth}"), format!("f{depth}"), format!("i{depth}"));
    let list = |value: &str| format!("type({value}{depth}) == list ? {value}{depth} : []");
    let named = |list: &str| {
        format!(
            "{list}.all({e}, type({e}) == map && type({e}[?'name'].orValue(dyn(0))) == string) && \
             {list}.all({e}, {list}.exists_one({f}, {f}.name == {e}.name))"
        )
    };
    let namesake = format!("{m}.filter({f}, {f}.name == {e}.name)[?0]");
    let by_name = format!(
        "{l}.exists({e}, {}) || {m}.exists({e}, !{l}.exists({f}, {f}.name == {e}.name) && {})",
        pair(&format!("optional.of({e})"), &namesake),
        pair("optional.none()", &format!("optional.of({e})")),
    );
    let mut positions = String::new();
    for position in 0..POSITIONS {
        // Writing to a String cannot fail.
        write!(positions, "{}{position}", if position == 0 { "" } else { "," }).ok();
    }
    let by_position = format!(
        "size({l}) > {POSITIONS} || size({m}) > {POSITIONS} || [{positions}].exists({i}, \
         ({i} < size({l}) || {i} < size({m})) && {})",
        pair(&format!("{l}[?{i}]"), &format!("{m}[?{i}]"))
    );
    format!(
        "[{}].exists({l}, [{}].exists({m}, (({}) && ({})) ? ({by_name}) : ({by_position})))",
        list("b"),
        list("a"),
        named(&l),
        named(&m)
    )
}

/// Members of maps belong together by their keys.
fn of_maps(depth: usize, pair: &dyn Fn(&str, &str) -> String) -> String {
    let (p, q, k) = (format!("p{depth}"), format!("q{depth}"), format!("k{depth}"));
    let map = |value: &str| format!("type({value}{depth}) == map ? {value}{depth} : {{}}");
    format!(
        "[{}].exists({p}, [{}].exists({q}, {p}.exists({k}, {}) || {q}.exists({k}, !({k} in {p}) && {})))",
        map("b"),
        map("a"),
        pair(&format!("{p}[?{k}]"), &format!("{q}[?{k}]")),
        pair("optional.none()", &format!("{q}[?{k}]")),
    )
}
