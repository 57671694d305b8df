//! Holding by suspending: a new Job, CronJob or Deployment is created, marked and suspended, and freed by its approval.
//!
//! Two calls for one creation. The first may change the object and decides whether it would be held so; it writes
//! nothing down and opens nothing. The second, the gate's own, decides again about the object as its author wrote it, and
//! admits it only if it is held so, marked, and really suspended. Whatever else comes with a mark is not let through; what
//! comes without one is held as usual. Who frees it is `edge/cluster/approvals`.

use super::verdict::{Case, annotate, status};
use super::{Webhook, with_type};
use crate::core::{
    action::Action,
    admission::{
        answer::Answer,
        mutation,
        review::Request as Review,
        subject,
        suspended::{Mark, Suspendable, digest},
    },
    approval::Suspended,
    policy::{Circumstances, Content, Decision, Facts, HoldMode, Outcome, decide},
};
use crate::edge::cluster::approvals::Opened;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use jiff::Timestamp;
use serde_json::{Value, value::RawValue};

/// A new object that comes marked and suspended.
pub(super) struct Suspension {
    /// What the request says of it.
    pub(super) asked: Suspended,
    /// The object as its author wrote it.
    pub(super) author: Box<RawValue>,
}

/// The suspension that a review brings; `None`: none.
///
/// # Errors
/// With a refusal, for a mark that is none of Kustody's.
pub(super) fn read(action: &Action, review: &Review<'_>) -> Result<Option<Suspension>, Box<Answer>> {
    let (Some(kind), Some(raw)) = (Suspendable::created_by(action), review.object) else { return Ok(None) };
    let object: Value = match serde_json::from_str(raw.get()) {
        Ok(object) => object,
        Err(error) => return Err(refused(&format!("the object cannot be read: {error}"))),
    };
    let mark = match Mark::read(kind, &object) {
        Ok(None) => return Ok(None),
        Ok(Some(mark)) => mark,
        Err(why) => return Err(refused(&why.to_string())),
    };
    let Some(uid) = object.pointer("/metadata/uid").and_then(Value::as_str) else {
        return Err(refused("the object has no uid yet"));
    };
    let asked =
        Suspended { uid: uid.to_owned(), mark: mark.id.clone(), by_author: mark.by_author, digest: digest(&object) };
    let author = serde_json::value::to_raw_value(&mark.taken_off(kind, object));
    let author = author.map_err(|error| refused(&format!("the object cannot be read: {error}")))?;
    Ok(Some(Suspension { asked, author }))
}

impl Webhook {
    /// The first call: suspends what would be held so. Nobody is refused here.
    pub(super) fn suspend(&self, review: &Review<'_>) -> Response<Full<Bytes>> {
        let body = mutation::encode(&review.uid, self.patch(review).as_ref());
        with_type(StatusCode::OK, "application/json", body.into())
    }

    fn patch(&self, review: &Review<'_>) -> Option<Value> {
        let snapshot = self.edges.snapshot.borrow().clone();
        let class = snapshot.classify(&review.identity())?;
        review.check().ok()?;
        let mut action = subject::action(review, class.name().clone()).ok()?;
        let kind = Suspendable::created_by(&action)?;
        let object: Value = serde_json::from_str(review.object?.get()).ok()?;
        let named = named_as_if(&object);
        if let Some((name, _)) = &named {
            action.name = Some(name.clone());
        }
        let named = named.as_ref().map(|(_, object)| object.as_ref());
        let content = Content { object: named.or(review.object), ..Content::of_review(review) };
        // Given back at once: the gate's call counts.
        let claimed = self.edges.budgets.claim(&action, &snapshot);
        let grants = self.edges.grants.active(&action);
        let circumstances =
            Circumstances { grants: &grants, usage: claimed.usage(), ..Circumstances::at(Timestamp::now()) };
        let decision = decide(&snapshot, &Facts { action: &action, content }, &circumstances);
        let Outcome::Hold(terms) = &decision.outcome else { return None };
        if terms.mode != HoldMode::Suspended {
            return None;
        }
        // The last twelve digits of such a uuid are random.
        let random = uuid::Uuid::now_v7().simple().to_string();
        Mark::fresh(kind, &object, &random).patch(kind, &object)
    }
}

/// A name like the one that the API server has yet to generate, and the object with it: rules may ask for names.
fn named_as_if(object: &Value) -> Option<(String, Box<RawValue>)> {
    let metadata = object.get("metadata")?;
    if metadata.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty()) {
        return None;
    }
    let name = format!("{}xxxxx", metadata.get("generateName").and_then(Value::as_str)?);
    let mut named = object.clone();
    named.get_mut("metadata")?.as_object_mut()?.insert("name".to_owned(), Value::String(name.clone()));
    Some((name, serde_json::value::to_raw_value(&named).ok()?))
}

/// Let through, suspended: people decide about what is there.
pub(super) fn admitted(case: &Case<'_>, decision: &Decision, opened: &Opened) -> Answer {
    let id = &opened.id;
    let mut answer = Answer::allow();
    answer.warnings = vec![
        format!("created suspended, held for approval {id} (rule {}: {})", decision.rule, decision.reason),
        format!("it starts when a person approves it: kubectl kustody approve {id}. Leave it as it is until then"),
    ];
    answer.warnings.extend(decision.warnings.iter().cloned());
    annotate(&mut answer, case, decision, "suspend", Some(id));
    let note = format!("created suspended, until {id} is approved");
    drop(answer.audit_annotations.insert("suspended".to_owned(), note));
    answer
}

/// Marked, and not to be suspended (any more): clients ask again, and the first call decides anew.
pub(super) fn stray(case: &Case<'_>, decision: &Decision) -> Answer {
    let message = "NOT EXECUTED. The object comes marked as suspended by Kustody, and by the rules as they are now it is \
                   not: repeat the request, without the annotation kustody.dev/suspended";
    let mut answer = Answer::again("", 1, message.to_owned());
    annotate(&mut answer, case, decision, "deny", None);
    answer
}

fn refused(why: &str) -> Box<Answer> {
    let message = format!("NOT EXECUTED. {why}: leave that annotation out");
    let mut answer = Answer::refuse(status(403, "Forbidden", "KustodyDeny", "", message));
    for (key, value) in [("decision", "deny"), ("rule", "built-in/suspended")] {
        drop(answer.audit_annotations.insert(key.to_owned(), value.to_owned()));
    }
    Box::new(answer)
}
