//! Which functions and variables there are, and of which types.
//!
//! `declarations.txt` is the list of Kubernetes 1.35's own environment, written by `tests/cel`: one overload a line, name
//! (with a dot when called on a receiver), arguments, result. The authorizer's functions are left out of it. The variables
//! are those of a ValidatingAdmissionPolicy, and Kustody's `agent`, `action` and `run`.

use super::types::Type;
use std::{collections::HashMap, sync::LazyLock};

/// One way to call a function.
#[derive(Debug)]
pub(super) struct Overload {
    pub(super) is_member: bool,
    pub(super) arguments: Vec<Type>,
    pub(super) result: Type,
    /// How many type parameters stand in it: 0, 1, ….
    pub(super) parameters: usize,
}

static FUNCTIONS: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let mut functions: HashMap<&'static str, Vec<Overload>> = HashMap::new();
    for line in include_str!("declarations.txt").lines() {
        if let Some((name, overload)) = overload(line) {
            functions.entry(name).or_default().push(overload);
        }
    }
    functions
});

/// Names of the types of libraries, which are also values.
pub(super) const OPAQUE: [&str; 6] =
    ["kubernetes.Quantity", "kubernetes.URL", "kubernetes.Semver", "kubernetes.NamedFormat", "net.IP", "net.CIDR"];

/// The overloads of a function.
pub(super) fn function(name: &str) -> Option<&'static [Overload]> {
    FUNCTIONS.get(name).map(Vec::as_slice)
}

/// Every function there is.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.keys().copied()
}

fn overload(line: &'static str) -> Option<(&'static str, Overload)> {
    let mut parts = line.split(' ');
    let (written, arguments, result) = (parts.next()?, parts.next()?, parts.next()?);
    let (name, is_member) = written.strip_prefix('.').map_or((written, false), |name| (name, true));
    let mut letters = Vec::new();
    let arguments = arguments.split(';').filter(|text| !text.is_empty()).map(|text| read(text, &mut letters));
    let arguments = arguments.collect::<Option<Vec<Type>>>()?;
    let result = read(result, &mut letters)?;
    Some((name, Overload { is_member, arguments, result, parameters: letters.len() }))
}

fn read(text: &'static str, letters: &mut Vec<&'static str>) -> Option<Type> {
    let inner = |name: &str| text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
    if let Some(of) = inner("list") {
        return Some(Type::list(read(of, letters)?));
    }
    if let Some(of) = inner("optional_type") {
        return Some(Type::optional(read(of, letters)?));
    }
    if let Some(of) = inner("type") {
        return Some(Type::Of(read(of, letters)?.into()));
    }
    if let Some(of) = inner("map") {
        // No key in the list has a comma in it.
        let (key, value) = of.split_once(',')?;
        return Some(Type::map(read(key, letters)?, read(value, letters)?));
    }
    if text.starts_with('<') {
        let position = letters.iter().position(|letter| *letter == text).unwrap_or_else(|| {
            letters.push(text);
            letters.len() - 1
        });
        return Some(Type::Parameter(position));
    }
    simple(text).or_else(|| OPAQUE.into_iter().find(|name| *name == text).map(Type::Opaque))
}

fn simple(text: &str) -> Option<Type> {
    Some(match text {
        "dyn" => Type::Dyn,
        "null_type" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::Text,
        "bytes" => Type::Bytes,
        "google.protobuf.Timestamp" => Type::Timestamp,
        "google.protobuf.Duration" => Type::Duration,
        _ => return None,
    })
}

/// The type a name stands for where it is used as a value: `type(x) == int`.
pub(super) fn type_named(name: &str) -> Option<Type> {
    Some(match name {
        "dyn" => return None,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "type" => Type::Of(Type::Dyn.into()),
        "optional_type" => Type::optional(Type::Dyn),
        other => match simple(other) {
            Some(found) => found,
            None => Type::Opaque(["net.IP", "net.CIDR"].into_iter().find(|opaque| *opaque == other)?),
        },
    })
}

/// Variables in the order of their slots.
pub(super) const VARIABLES: [&str; 8] =
    ["object", "oldObject", "params", "request", "namespaceObject", "agent", "action", "run"];

/// The type of a variable.
pub(super) fn variable(name: &str) -> Option<Type> {
    Some(match name {
        "object" | "oldObject" | "params" | "run" => Type::Dyn,
        "request" => Type::Struct("kubernetes.AdmissionRequest"),
        "namespaceObject" => Type::Struct("kubernetes.Namespace"),
        "agent" => Type::Struct("kustody.Agent"),
        "action" => Type::Struct("kustody.Action"),
        _ => return None,
    })
}

/// The type of a field of a struct.
pub(super) fn field(of: &str, name: &str) -> Option<Type> {
    let texts = Type::list(Type::Text);
    Some(match (of, name) {
        ("kubernetes.AdmissionRequest", "kind" | "requestKind") => Type::Struct("kubernetes.GroupVersionKind"),
        ("kubernetes.AdmissionRequest", "resource" | "requestResource") => {
            Type::Struct("kubernetes.GroupVersionResource")
        }
        ("kubernetes.AdmissionRequest", "userInfo") => Type::Struct("kubernetes.UserInfo"),
        ("kubernetes.AdmissionRequest", "dryRun") | ("kustody.Action", "dryRun") => Type::Bool,
        ("kubernetes.AdmissionRequest", "options") => Type::Dyn,
        ("kubernetes.AdmissionRequest", "subResource" | "requestSubResource" | "name" | "namespace" | "operation")
        | ("kubernetes.GroupVersionKind", "group" | "version" | "kind")
        | ("kubernetes.GroupVersionResource", "group" | "version" | "resource")
        | ("kubernetes.UserInfo", "username" | "uid")
        | ("kustody.Agent", "class" | "user")
        | (
            "kustody.Action",
            "operation" | "verb" | "group" | "version" | "resource" | "subresource" | "namespace" | "name",
        ) => Type::Text,
        ("kubernetes.UserInfo" | "kustody.Agent", "groups") => texts,
        ("kubernetes.UserInfo" | "kustody.Agent", "extra") => Type::map(Type::Text, texts),
        (namespace, name) => return field_of_namespace(namespace, name),
    })
}

fn field_of_namespace(of: &str, name: &str) -> Option<Type> {
    Some(match (of, name) {
        ("kubernetes.Namespace", "metadata") => Type::Struct("kubernetes.NamespaceMetadata"),
        ("kubernetes.Namespace", "spec") => Type::Struct("kubernetes.NamespaceSpec"),
        ("kubernetes.Namespace", "status") => Type::Struct("kubernetes.NamespaceStatus"),
        ("kubernetes.NamespaceSpec" | "kubernetes.NamespaceMetadata", "finalizers") => Type::list(Type::Text),
        ("kubernetes.NamespaceStatus", "conditions") => Type::list(Type::Struct("kubernetes.NamespaceCondition")),
        ("kubernetes.NamespaceStatus", "phase")
        | ("kubernetes.NamespaceCondition", "status" | "type" | "message" | "reason")
        | ("kubernetes.NamespaceMetadata", "name" | "generateName" | "namespace" | "UID" | "resourceVersion") => {
            Type::Text
        }
        ("kubernetes.NamespaceMetadata", "labels" | "annotations") => Type::map(Type::Text, Type::Text),
        ("kubernetes.NamespaceMetadata", "creationTimestamp" | "deletionTimestamp")
        | ("kubernetes.NamespaceCondition", "lastTransitionTime") => Type::Timestamp,
        ("kubernetes.NamespaceMetadata", "deletionGracePeriodSeconds" | "generation") => Type::Int,
        _ => return None,
    })
}
