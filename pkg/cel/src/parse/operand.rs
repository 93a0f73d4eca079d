//! What is between operators: names, literals, calls, lists and maps, and what is selected of them.

use super::lexer::{Token, Word};
use super::{LIST_START, MAP_START, OPERAND, OPERAND_OR_CLOSED, Parsed, Parser, RESERVED, Stop, Sub, literal};
use crate::ast::{Element, Entry, Expr, Kind, Literal};

impl Parser<'_> {
    /// `.field`, `.?field` or `.method(…)`, after the dot.
    pub(super) fn selection(&mut self, operand: Sub, dot: Token<'_>) -> Parsed<Sub> {
        let optional = self.takes("?").is_some();
        let name = self.peek();
        match name.word {
            Word::Ident => self.take(),
            Word::Escaped => {
                self.report(name.at, "unsupported syntax: '`'");
                self.take()
            }
            Word::True | Word::False | Word::Null | Word::In => return self.syntax(name, "mismatched", "IDENTIFIER"),
            Word::End => {
                self.report(name.at, "Syntax error: no viable alternative at input '.'");
                return Err(Stop);
            }
            _ => {
                self.report(
                    name.at,
                    format!("Syntax error: no viable alternative at input '.{}'", name.text),
                );
                return Err(Stop);
            }
        };
        if optional {
            let field = Expr::literal(name.at, Literal::String(name.text.into()));
            return self.above(Expr::call(dot.at, "_?._", vec![operand.expr, field]), [operand.height]);
        }
        if name.word == Word::Ident
            && let Some(open) = self.takes("(")
        {
            let args = self.arguments()?;
            let heights: Vec<u16> = args.iter().map(|arg| arg.height).chain([operand.height]).collect();
            let args = args.into_iter().map(|arg| arg.expr).collect();
            let expr = self.call_or_macro(open.at, name.text, Some(operand.expr), args);
            return self.above(expr, heights);
        }
        let kind = Kind::Select {
            operand: Box::new(operand.expr),
            field: name.text.into(),
            test: false,
        };
        self.above(Expr::new(dot.at, kind), [operand.height])
    }

    /// The arguments of a call, after its bracket.
    pub(super) fn arguments(&mut self) -> Parsed<Vec<Sub>> {
        if self.takes(")").is_some() {
            return Ok(Vec::new());
        }
        self.start_operand(OPERAND_OR_CLOSED, |word| word == Word::Sign(")"))?;
        let mut args = vec![self.expression()?];
        while self.takes(",").is_some() {
            args.push(self.expression()?);
        }
        self.expect(")")?;
        Ok(args)
    }

    pub(super) fn primary(&mut self) -> Parsed<Sub> {
        self.start_operand(OPERAND, |_| false)?;
        let token = self.take();
        match token.word {
            Word::Sign("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Word::Sign("[") => self.list(token.at),
            Word::Sign("{") => self.map(token.at),
            Word::Sign("-") => {
                let number = self.take();
                self.literal(number, token.at, true)
            }
            Word::Sign(".") => match self.peek() {
                name if name.word == Word::Ident => {
                    self.take();
                    self.name(name, ".")
                }
                name => {
                    let text = if name.word == Word::End { "" } else { name.text };
                    self.report(
                        name.at,
                        format!("Syntax error: no viable alternative at input '.{text}'"),
                    );
                    Err(Stop)
                }
            },
            Word::Ident => self.name(token, ""),
            _ => self.literal(token, token.at, false),
        }
    }

    fn literal(&mut self, token: Token<'_>, at: u32, negative: bool) -> Parsed<Sub> {
        let literal = match token.word {
            Word::Int => literal::int(token.text, negative),
            Word::Uint => literal::uint(token.text),
            Word::Float => literal::double(token.text, negative),
            Word::String => literal::text(token.text, false),
            Word::Bytes => literal::text(token.text, true),
            Word::True => Ok(Literal::Bool(true)),
            Word::False => Ok(Literal::Bool(false)),
            Word::Null => Ok(Literal::Null),
            _ => return self.syntax(token, "mismatched", OPERAND),
        };
        let literal = literal.unwrap_or_else(|message| {
            self.report(at, message);
            Literal::Null
        });
        Ok(Sub::leaf(Expr::literal(at, literal)))
    }

    /// What begins with a name: a variable, a call, or a message that is made.
    fn name(&mut self, token: Token<'_>, dot: &str) -> Parsed<Sub> {
        if let Some(made) = self.made(token, dot)? {
            return Ok(made);
        }
        if RESERVED.contains(&token.text) {
            self.report(
                token.at - dot.len() as u32,
                format!("reserved identifier: {}", token.text),
            );
        }
        let name = format!("{dot}{}", token.text);
        let Some(open) = self.takes("(") else {
            return Ok(Sub::leaf(Expr::ident(token.at, &name)));
        };
        let args = self.arguments()?;
        let height = args.iter().map(|arg| arg.height).max().unwrap_or(0);
        let args = args.into_iter().map(|arg| arg.expr).collect();
        Ok(Sub {
            expr: self.call_or_macro(open.at, &name, None, args),
            height,
        })
    }

    /// `a.b.C{field: value}`, where it is one.
    fn made(&mut self, first: Token<'_>, dot: &str) -> Parsed<Option<Sub>> {
        let mut ahead = self.next;
        let mut name = format!("{dot}{}", first.text);
        while let [
            Token {
                word: Word::Sign("."), ..
            },
            Token {
                word: Word::Ident,
                text,
                ..
            },
            ..,
        ] = self.words[ahead..]
        {
            name = format!("{name}.{text}");
            ahead += 2;
        }
        if self.words[ahead].word != Word::Sign("{") {
            return Ok(None);
        }
        self.next = ahead;
        let open = self.take();
        let (mut fields, mut height) = (Vec::new(), 0);
        while !self.is("}") {
            self.takes("?");
            let field = self.take();
            if !matches!(field.word, Word::Ident | Word::Escaped) {
                return self.syntax(field, "mismatched", "{'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}");
            }
            self.expect(":")?;
            let value = self.expression()?;
            height = height.max(value.height);
            fields.push(value.expr);
            if self.takes(",").is_none() {
                break;
            }
        }
        self.expect("}")?;
        Ok(Some(Sub {
            expr: Expr::new(
                open.at,
                Kind::Struct {
                    name: name.into(),
                    fields,
                },
            ),
            height,
        }))
    }

    fn list(&mut self, at: u32) -> Parsed<Sub> {
        let (mut elements, mut height) = (Vec::new(), 0);
        let ends = |word: Word| matches!(word, Word::Sign("]" | "," | "?"));
        self.start_operand(LIST_START, ends)?;
        while !self.is("]") && !self.is(",") && self.peek().word != Word::End {
            let optional = self.takes("?").is_some();
            let value = self.expression()?;
            height = height.max(value.height);
            elements.push(Element {
                value: value.expr,
                optional,
            });
            self.separator("]", "{']', ','}")?;
            if self.takes(",").is_none() {
                break;
            }
        }
        if elements.is_empty() {
            self.takes(",");
        }
        self.expect("]")?;
        Ok(Sub {
            expr: Expr::new(at, Kind::List(elements)),
            height,
        })
    }

    fn map(&mut self, at: u32) -> Parsed<Sub> {
        let (mut entries, mut height) = (Vec::new(), 0);
        let ends = |word: Word| matches!(word, Word::Sign("}" | "," | "?"));
        self.start_operand(MAP_START, ends)?;
        while !self.is("}") && !self.is(",") && self.peek().word != Word::End {
            let optional = self.takes("?").is_some();
            let key = self.expression()?;
            self.expect(":")?;
            let value = self.expression()?;
            height = height.max(key.height).max(value.height);
            entries.push(Entry {
                key: key.expr,
                value: value.expr,
                optional,
            });
            self.separator("}", "{'}', ','}")?;
            if self.takes(",").is_none() {
                break;
            }
        }
        if entries.is_empty() {
            self.takes(",");
        }
        self.expect("}")?;
        Ok(Sub {
            expr: Expr::new(at, Kind::Map(entries)),
            height,
        })
    }

    /// After an element: a comma or the end of the literal, or one word too many before them.
    fn separator(&mut self, close: &'static str, expected: &str) -> Parsed<()> {
        if self.is(",") || self.is(close) {
            return Ok(());
        }
        let token = self.peek();
        if token.word == Word::End && close == "]" {
            return Ok(());
        }
        if matches!(self.after().word, Word::Sign(sign) if sign == close || sign == ",") {
            self.complain(token, "extraneous", expected);
            self.take();
            return Ok(());
        }
        self.syntax(token, "mismatched", expected)
    }
}
