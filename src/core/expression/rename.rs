//! Variables under another name: the text of an expression with some of its variables renamed, and nothing else changed.

use super::lexer::{self, Token};
use super::problem::Problem;

/// Calls whose first argument declares a variable.
const DECLARING: [&str; 12] = [
    "all",
    "exists",
    "exists_one",
    "existsOne",
    "map",
    "filter",
    "optMap",
    "optFlatMap",
    "sortBy",
    "transformList",
    "transformMap",
    "transformMapEntry",
];

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// The text with the new names.
    pub text: String,
    /// Which of the variables it uses.
    pub used: Vec<&'static str>,
}

/// Puts `prefix` before each of `variables` in `text`.
///
/// # Errors
/// When the text has no tokens, or declares a variable of such a name itself.
pub fn rename(text: &str, variables: &[&'static str], prefix: &str) -> Result<Renamed, Problem> {
    let tokens = lexer::tokens(text)?;
    let symbol = |position: Option<usize>, wanted: &str| {
        let token = position.and_then(|position| tokens.get(position)).map(|one| &one.token);
        matches!(token, Some(Token::Symbol(found)) if *found == wanted)
    };
    let mut renamed = Renamed { text: String::with_capacity(text.len()), used: Vec::new() };
    let mut done = 0;
    for (position, spanned) in tokens.iter().enumerate() {
        let Token::Identifier(name) = &spanned.token else { continue };
        let Some(variable) = variables.iter().find(|variable| *variable == name) else { continue };
        let before = |back: usize| position.checked_sub(back);
        let is_member = symbol(before(1), ".") || (symbol(before(1), "?") && symbol(before(2), "."));
        if is_member {
            continue;
        }
        let caller = before(2).and_then(|at| tokens.get(at));
        let declares = symbol(before(1), "(")
            && caller
                .is_some_and(|one| matches!(&one.token, Token::Identifier(call) if DECLARING.contains(&call.as_str())));
        if declares {
            let message = format!("{name} is declared here again");
            return Err(lexer::problem(text, spanned.at, message, "give the element another name"));
        }
        renamed.text.push_str(text.get(done..spanned.at).unwrap_or_default());
        renamed.text.push_str(prefix);
        done = spanned.at;
        if !renamed.used.contains(variable) {
            renamed.used.push(variable);
        }
    }
    renamed.text.push_str(text.get(done..).unwrap_or_default());
    Ok(renamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_renamed_and_members_literals_and_words_within_words_are_not() {
        let text = "action.name == 'action' && object.action != r\"run\" && object.?run.orValue('') == '' && xrun || run==null ? run : [agent]";
        let renamed = rename(text, &["agent", "action", "run"], "variables.").unwrap();
        assert_eq!(
            renamed.text,
            "variables.action.name == 'action' && object.action != r\"run\" && object.?run.orValue('') == '' && xrun || \
             variables.run==null ? variables.run : [variables.agent]"
        );
        assert_eq!(renamed.used, ["action", "run", "agent"]);
        assert_eq!(rename("object.x", &["run"], "v.").unwrap().used, Vec::<&str>::new());
    }

    #[test]
    fn a_name_that_is_declared_again_is_no_variable_of_ours() {
        assert!(rename("object.list.exists(run, run == 1)", &["run"], "variables.").is_err());
    }
}
