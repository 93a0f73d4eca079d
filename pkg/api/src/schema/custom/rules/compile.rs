//! From a rule's texts to programs, or to what is wrong with them.

use std::sync::Arc;

use mk8s_cel::{Decl, Env, Program, Type};

use super::Rule;

/// A rule that can be run.
pub(super) struct Compiled {
    /// None where there is no expression.
    pub program: Option<Result<Program, String>>,
    /// What one run can cost.
    pub cost: u64,
    pub uses_old: bool,
    /// The expression that makes its message, with its cost.
    pub message: Option<Result<(Program, u64), String>>,
}

/// The name of the type of `self`: it is shown in messages, where upstream has a number behind it.
const SELF: &str = "selfType";

/// Compiles rules for values that `decl` declares.
pub(super) fn all(rules: &[Rule], decl: &Arc<Decl>) -> Vec<Compiled> {
    if !decl.is_typed() {
        return Vec::new();
    }
    let env = |optional: bool| {
        let env = Env::default().with_declared("self", SELF, decl, false);
        env.with_declared("oldSelf", SELF, decl, optional)
    };
    let (plain, optional) = (env(false), env(true));
    let env = |rule: &Rule| {
        if rule.optional_old == Some(true) {
            &optional
        } else {
            &plain
        }
    };
    rules.iter().map(|rule| one(rule, env(rule))).collect()
}

fn one(rule: &Rule, env: &Env) -> Compiled {
    let mut compiled = Compiled {
        program: None,
        cost: 0,
        uses_old: false,
        message: None,
    };
    if rule.rule.trim().is_empty() {
        return compiled;
    }
    let checked = match env.compile(&rule.rule) {
        Ok(checked) if *checked.result() == Type::Bool => checked,
        Ok(_) => {
            compiled.program = Some(Err("cel expression must evaluate to a bool".into()));
            return compiled;
        }
        Err(invalid) => {
            compiled.program = Some(Err(format!("compilation failed: {invalid}")));
            return compiled;
        }
    };
    compiled.uses_old = checked.mentions("oldSelf");
    let program = checked
        .program()
        .map_err(|error| format!("program instantiation failed: {error}"));
    let failed = program.is_err();
    compiled.program = Some(program);
    if failed {
        return compiled;
    }
    compiled.cost = checked.cost.max;
    if !rule.message_expression.is_empty() {
        compiled.message = Some(message(&rule.message_expression, env));
    }
    compiled
}

fn message(expression: &str, env: &Env) -> Result<(Program, u64), String> {
    let checked = env
        .compile(expression)
        .map_err(|invalid| format!("messageExpression compilation failed: {invalid}"))?;
    if *checked.result() != Type::String {
        return Err("messageExpression must evaluate to a string".into());
    }
    let program = checked
        .program()
        .map_err(|error| format!("messageExpression instantiation failed: {error}"))?;
    Ok((program, checked.cost.max))
}
