//! YAML documents as JSON values that remember their lines, so that a problem names the line it is about.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;
use std::fmt;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Located {
    line: usize,
    node: Node,
}

#[derive(Debug, Clone)]
enum Node {
    Scalar(Value),
    Items(Vec<Located>),
    Members(Vec<(String, Located)>),
}

/// All documents of a YAML (or JSON) text; empty ones are left out.
pub(super) fn documents(text: &str) -> Result<Vec<Located>, serde_saphyr::Error> {
    serde_saphyr::from_multiple::<Located>(text)
}

impl Located {
    /// The line it begins in, counted from 1.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// As a plain value. Of members that are there twice the last one counts.
    pub(super) fn value(&self) -> Value {
        match &self.node {
            Node::Scalar(value) => value.clone(),
            Node::Items(items) => items.iter().map(Located::value).collect(),
            Node::Members(members) => {
                Value::Object(members.iter().map(|(key, member)| (key.clone(), member.value())).collect::<Map<_, _>>())
            }
        }
    }

    /// The line of the deepest value that is there on a path such as `spec.rules[3].match.names[0]`.
    pub(super) fn line_of(&self, path: &str) -> usize {
        let mut here = self;
        let mut line = self.line;
        for step in path.split(['.', '[']).map(|step| step.trim_end_matches(']')).filter(|step| !step.is_empty()) {
            let next = match &here.node {
                Node::Members(members) => members.iter().find(|(key, _)| key == step).map(|(_, member)| member),
                Node::Items(items) => step.parse::<usize>().ok().and_then(|position| items.get(position)),
                Node::Scalar(_) => None,
            };
            let Some(next) = next else { break };
            line = next.line;
            here = next;
        }
        line
    }
}

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Node>::deserialize(deserializer)?;
        Ok(Self { line: usize::try_from(spanned.referenced.line()).unwrap_or_default(), node: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(entry) = map.next_entry::<String, Located>()? {
            members.push(entry);
        }
        Ok(Node::Members(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Located>()? {
            items.push(item);
        }
        Ok(Node::Items(items))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_keep_their_lines_in_every_document() {
        let text = "a: 1\n---\n# a comment\nspec:\n  rules:\n  - id: x\n    match: {names: [p, q]}\n  - id: true\n";
        let documents = documents(text).unwrap();
        assert_eq!(documents.len(), 2);
        let second = &documents[1];
        assert_eq!(
            second.value(),
            json!({"spec": {"rules": [{"id": "x", "match": {"names": ["p", "q"]}}, {"id": true}]}})
        );
        assert_eq!(second.line_of("spec.rules[0].match.names[1]"), 7);
        assert_eq!(second.line_of("spec.rules[1].id"), 8);
        assert_eq!(second.line_of("spec.rules[1].nothing[3].there"), 8);
    }
}
