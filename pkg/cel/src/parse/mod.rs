//! From text to a tree. A recursive descent over the language's grammar, bounded in length and depth because expressions come
//! from users; errors are worded as by the parser that everybody else generates from the same grammar.

mod lexer;
mod literal;
mod macros;
mod operand;

use lexer::{Token, Word};
pub(crate) use macros::ACCUMULATOR;

use crate::ast::{Expr, Literal};
use crate::source::Issue;

/// Code points that an expression may have.
const LONGEST: usize = 100_000;
/// How many operators, selections and calls may be in each other.
const DEEPEST: u16 = 250;
/// How many brackets may be in each other: fewer than elsewhere (250), because a request's thread has 2 MiB of stack.
const DEEPEST_BRACKETS: u16 = 100;

/// Names that no variable can have.
pub(crate) const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// What may begin an operand, in the words of its error.
const OPERAND: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
const OPERAND_OR_CLOSED: &str = "{'[', '{', '(', ')', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
const OPERAND_OR_OPTIONAL: &str = "{'[', '{', '(', '.', '-', '!', '?', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
const LIST_START: &str = "{'[', ']', '{', '(', '.', ',', '-', '!', '?', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
const MAP_START: &str = "{'[', '{', '}', '(', '.', ',', '-', '!', '?', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Parses an expression and expands its macros.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn parse(source: &str, binds: bool) -> Result<Expr, Vec<Issue>> {
    let length = source.chars().count();
    if length > LONGEST {
        let message = format!("expression code point size exceeds limit: size: {length}, limit {LONGEST}");
        return Err(vec![Issue { at: None, message }]);
    }
    let mut issues = Vec::new();
    let words = lexer::words(source, &mut issues);
    let mut parser = Parser {
        source,
        words: &words,
        next: 0,
        nested: 0,
        copied: 0,
        binds,
        issues,
    };
    let parsed = parser.whole();
    match parsed {
        Ok(expr) if parser.issues.is_empty() => Ok(expr),
        _ => Err(parser.issues),
    }
}

/// The parser gave up; why is among its issues.
struct Stop;

type Parsed<T> = Result<T, Stop>;

/// A tree and how many operators, selections and calls are in each other in it.
struct Sub {
    expr: Expr,
    height: u16,
}

impl Sub {
    fn leaf(expr: Expr) -> Sub {
        Sub { expr, height: 0 }
    }
}

struct Parser<'s> {
    source: &'s str,
    words: &'s [Token<'s>],
    next: usize,
    nested: u16,
    copied: usize,
    /// Whether `cel.bind` is a macro.
    binds: bool,
    issues: Vec<Issue>,
}

impl<'s> Parser<'s> {
    fn whole(&mut self) -> Parsed<Expr> {
        let Sub { expr, .. } = self.expression()?;
        let token = self.peek();
        if token.word == Word::End {
            return Ok(expr);
        }
        let what = if self.after().word == Word::End {
            "extraneous"
        } else {
            "mismatched"
        };
        self.syntax(token, what, "<EOF>")
    }

    fn peek(&self) -> Token<'s> {
        self.words[self.next]
    }

    fn after(&self) -> Token<'s> {
        self.words[(self.next + 1).min(self.words.len() - 1)]
    }

    fn take(&mut self) -> Token<'s> {
        let token = self.peek();
        self.next = (self.next + 1).min(self.words.len() - 1);
        token
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek().word, Word::Sign(found) if found == sign)
    }

    /// Takes a sign if it is there.
    fn takes(&mut self, sign: &str) -> Option<Token<'s>> {
        self.is(sign).then(|| self.take())
    }

    fn report(&mut self, at: u32, message: impl Into<String>) {
        self.issues.push(Issue::at(at, message));
    }

    /// Reports a word that cannot be there.
    fn complain(&mut self, token: Token<'_>, what: &str, expected: &str) {
        self.report(
            token.at,
            format!("Syntax error: {what} input '{}' expecting {expected}", token.text),
        );
    }

    fn syntax<T>(&mut self, token: Token<'_>, what: &str, expected: &str) -> Parsed<T> {
        self.complain(token, what, expected);
        Err(Stop)
    }

    fn too_deep<T>(&mut self, message: String) -> Parsed<T> {
        self.issues.push(Issue { at: None, message });
        Err(Stop)
    }

    /// A node above others: one level more than the highest of them.
    fn above(&mut self, expr: Expr, heights: impl IntoIterator<Item = u16>) -> Parsed<Sub> {
        let height = heights.into_iter().max().unwrap_or(0) + 1;
        if height > DEEPEST {
            return self.too_deep("max recursion depth exceeded".into());
        }
        Ok(Sub { expr, height })
    }

    /// A sign that has to be there. One word too many before it is passed over, and one that is missing at the end is named:
    /// there is nothing to go on with then.
    fn expect(&mut self, sign: &str) -> Parsed<Token<'s>> {
        if let Some(token) = self.takes(sign) {
            return Ok(token);
        }
        let token = self.peek();
        if matches!(self.after().word, Word::Sign(found) if found == sign) {
            self.complain(token, "extraneous", &format!("'{sign}'"));
            self.take();
            return Ok(self.take());
        }
        let closes = matches!(sign, ")" | "]");
        if (closes && token.word == Word::End) || (sign == ":" && starts_operand(token.word)) {
            self.report(token.at, format!("Syntax error: missing '{sign}' at '{}'", token.text));
            return Err(Stop);
        }
        self.syntax(token, "mismatched", &format!("'{sign}'"))
    }

    fn expression(&mut self) -> Parsed<Sub> {
        self.nested += 1;
        if self.nested > DEEPEST_BRACKETS {
            return self.too_deep(format!("expression recursion limit exceeded: {DEEPEST_BRACKETS}"));
        }
        let condition = self.operation()?;
        let parsed = match self.takes("?") {
            None => condition,
            Some(question) => {
                let truthy = self.operation()?;
                self.expect(":")?;
                let falsy = self.expression()?;
                let heights = [condition.height, truthy.height, falsy.height];
                let args = vec![condition.expr, truthy.expr, falsy.expr];
                self.above(Expr::call(question.at, "_?_:_", args), heights)?
            }
        };
        self.nested -= 1;
        Ok(parsed)
    }

    /// Operands with operators between them, by how tightly those bind. Not a function per level: expressions are deep, and
    /// the stack is not.
    fn operation(&mut self) -> Parsed<Sub> {
        let mut operands = vec![self.unary()?];
        let mut operators: Vec<Operator> = Vec::new();
        while let Some((level, function)) = operator(self.peek().word) {
            self.reduce(level, &mut operands, &mut operators)?;
            operators.push(Operator {
                level,
                function,
                at: self.take().at,
            });
            operands.push(self.unary()?);
        }
        self.reduce(OR, &mut operands, &mut operators)?;
        self.join(OR, &mut operands, &mut operators);
        operands.pop().ok_or(Stop)
    }

    /// Applies the operators that bind at least as tightly as one of `level` that comes next.
    fn reduce(&mut self, level: u8, operands: &mut Vec<Sub>, operators: &mut Vec<Operator>) -> Parsed<()> {
        while let Some(last) = operators.pop_if(|last| last.level > AND && last.level >= level) {
            let (Some(right), Some(left)) = (operands.pop(), operands.pop()) else {
                return Err(Stop);
            };
            let heights = [left.height, right.height];
            operands.push(self.above(Expr::call(last.at, last.function, vec![left.expr, right.expr]), heights)?);
        }
        if level == OR {
            self.join(AND, operands, operators);
        }
        Ok(())
    }

    /// Makes one balanced tree of the last operands that `&&` or `||` are between.
    fn join(&mut self, level: u8, operands: &mut Vec<Sub>, operators: &mut Vec<Operator>) {
        let first = operators
            .iter()
            .rposition(|operator| operator.level != level)
            .map_or(0, |other| other + 1);
        let joined: Vec<Operator> = operators.drain(first..).collect();
        let Some(Operator { function, .. }) = joined.first() else {
            return;
        };
        let terms = operands.split_off(operands.len() - joined.len() - 1);
        let height = terms.iter().map(|term| term.height).max().unwrap_or(0);
        let mut terms: Vec<Option<Expr>> = terms.into_iter().map(|term| Some(term.expr)).collect();
        let signs: Vec<u32> = joined.iter().map(|operator| operator.at).collect();
        operands.push(Sub {
            expr: balanced(&mut terms, &signs, 0, function),
            height,
        });
    }

    fn unary(&mut self) -> Parsed<Sub> {
        self.start_operand(OPERAND, |_| false)?;
        let sign = self.peek();
        let function = match sign.word {
            Word::Sign("!") => "!_",
            Word::Sign("-") if !matches!(self.after().word, Word::Int | Word::Float) => "-_",
            _ => return self.member(),
        };
        let Word::Sign(text) = sign.word else { return Err(Stop) };
        let (mut odd, mut last) = (false, sign.at);
        while let Some(one) = self.takes(text) {
            (odd, last) = (!odd, one.at);
        }
        if text == "-" && self.peek().word == Word::End {
            let end = self.peek().at;
            let read = self.source.chars().skip(last as usize).take((end - last) as usize);
            let read: String = read.flat_map(char::escape_debug).collect();
            self.report(end, format!("Syntax error: no viable alternative at input '{read}'"));
        }
        if text == "!" && self.peek().word == Word::End {
            return self.syntax(self.peek(), "extraneous", OPERAND);
        }
        let operand = self.member()?;
        if !odd {
            return Ok(operand);
        }
        Ok(Sub {
            expr: Expr::call(sign.at, function, vec![operand.expr]),
            height: operand.height,
        })
    }

    /// Makes sure that an operand (or what `or` says) is next, and passes over one word before it.
    fn start_operand(&mut self, expected: &str, or: impl Fn(Word) -> bool) -> Parsed<()> {
        let token = self.peek();
        if starts_operand(token.word) || or(token.word) {
            return Ok(());
        }
        let next = self.after().word;
        if token.word != Word::End && (starts_operand(next) || or(next)) {
            self.complain(token, "extraneous", expected);
            self.take();
            return Ok(());
        }
        self.complain(token, "mismatched", expected);
        if operator(token.word).is_none() || next != Word::End {
            return Err(Stop);
        }
        // What is between operands lacks the second as well.
        self.take();
        self.syntax(self.peek(), "mismatched", expected)
    }

    fn member(&mut self) -> Parsed<Sub> {
        let mut operand = self.primary()?;
        loop {
            if let Some(dot) = self.takes(".") {
                operand = self.selection(operand, dot)?;
            } else if let Some(open) = self.takes("[") {
                let optional = self.takes("?").is_some();
                if !optional {
                    self.start_operand(OPERAND_OR_OPTIONAL, |_| false)?;
                }
                let index = self.expression()?;
                self.expect("]")?;
                let function = if optional { "_[?_]" } else { "_[_]" };
                let heights = [operand.height, index.height];
                operand = self.above(Expr::call(open.at, function, vec![operand.expr, index.expr]), heights)?;
            } else {
                return Ok(operand);
            }
        }
    }

    fn call_or_macro(&mut self, at: u32, function: &str, target: Option<Expr>, args: Vec<Expr>) -> Expr {
        let expanded = match target {
            Some(namespace) if self.binds && macros::binds(&namespace, function, &args) => macros::bind(at, args),
            target => macros::expand(at, function, target, args, &mut self.copied),
        };
        match expanded {
            Ok(expr) => expr,
            Err(issue) => {
                self.issues.push(issue);
                Expr::literal(at, Literal::Null)
            }
        }
    }
}

fn starts_operand(word: Word) -> bool {
    !matches!(word, Word::End | Word::In | Word::Escaped)
        && !matches!(word, Word::Sign(sign) if !matches!(sign, "[" | "{" | "(" | "." | "-" | "!"))
}

/// An operator between two operands that is not applied yet.
struct Operator {
    level: u8,
    function: &'static str,
    at: u32,
}

const OR: u8 = 0;
const AND: u8 = 1;

/// How tightly an operator binds, and the function that it calls.
fn operator(word: Word) -> Option<(u8, &'static str)> {
    Some(match word {
        Word::In => (2, "@in"),
        Word::Sign("||") => (OR, "_||_"),
        Word::Sign("&&") => (AND, "_&&_"),
        Word::Sign("==") => (2, "_==_"),
        Word::Sign("!=") => (2, "_!=_"),
        Word::Sign("<") => (2, "_<_"),
        Word::Sign("<=") => (2, "_<=_"),
        Word::Sign(">") => (2, "_>_"),
        Word::Sign(">=") => (2, "_>=_"),
        Word::Sign("+") => (3, "_+_"),
        Word::Sign("-") => (3, "_-_"),
        Word::Sign("*") => (4, "_*_"),
        Word::Sign("/") => (4, "_/_"),
        Word::Sign("%") => (4, "_%_"),
        _ => return None,
    })
}

/// `terms` joined by `signs` (one fewer): the middle sign is the root.
fn balanced(terms: &mut [Option<Expr>], signs: &[u32], from: usize, function: &str) -> Expr {
    let Some(last) = signs.len().checked_sub(1) else {
        return terms[from].take().unwrap_or_else(|| Expr::literal(0, Literal::Null));
    };
    let middle = last.div_ceil(2);
    let left = balanced(terms, &signs[..middle], from, function);
    let right = balanced(terms, &signs[middle + 1..], from + middle + 1, function);
    Expr::call(signs[middle], function, vec![left, right])
}
