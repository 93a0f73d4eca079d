//! OpenAPI v2 in gnostic's protobuf, which kubectl asks for: the messages of openapi.v2 that Kubernetes documents use,
//! written from the same JSON as the JSON document. Extensions and defaults travel as YAML text, of which JSON is a part.

use serde_json::{Map, Value};

/// A protobuf message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, number: u64, bytes: &[u8]) {
        self.varint(number << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, number: u64, text: &str) {
        self.bytes(number, text.as_bytes());
    }

    fn message(&mut self, number: u64, message: Message) {
        self.bytes(number, &message.0);
    }

    fn flag(&mut self, number: u64, value: &Value) {
        if value.as_bool() == Some(true) {
            self.varint(number << 3);
            self.0.push(1);
        }
    }

    fn number(&mut self, number: u64, value: &Value) {
        if let Some(value) = value.as_i64() {
            self.varint(number << 3);
            self.varint(value as u64);
        }
    }

    fn double(&mut self, number: u64, value: &Value) {
        if let Some(value) = value.as_f64() {
            self.varint(number << 3 | 1);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    fn strings(&mut self, number: u64, values: &Value) {
        match values {
            Value::Array(items) => items
                .iter()
                .filter_map(Value::as_str)
                .for_each(|text| self.text(number, text)),
            Value::String(text) => self.text(number, text),
            _ => {}
        }
    }

    fn str(&mut self, number: u64, value: &Value) {
        if let Some(text) = value.as_str() {
            self.text(number, text);
        }
    }

    /// gnostic's Any, with its YAML.
    fn any(&mut self, number: u64, value: &Value) {
        let mut any = Message::default();
        any.text(2, &format!("{value}\n"));
        self.message(number, any);
    }

    fn named(&mut self, number: u64, name: &str, value: Message) {
        let mut named = Message::default();
        named.text(1, name);
        named.message(2, value);
        self.message(number, named);
    }

    fn extension(&mut self, number: u64, name: &str, value: &Value) {
        let mut any = Message::default();
        any.text(2, &format!("{value}\n"));
        self.named(number, name, any);
    }
}

pub(super) struct Document(Message);

impl Document {
    pub(super) fn new(version: &str) -> Self {
        let mut document = Message(Vec::with_capacity(1 << 20));
        document.text(1, "2.0");
        let mut info = Message::default();
        info.text(1, "Kubernetes");
        info.text(2, version);
        document.message(2, info);
        Document(document)
    }

    pub(super) fn paths<'p>(&mut self, paths: impl Iterator<Item = (&'p str, Value)>) {
        let mut all = Message::default();
        for (path, item) in paths {
            all.named(2, path, path_item(&item));
        }
        self.0.message(8, all);
    }

    pub(super) fn definitions(&mut self, definitions: impl Iterator<Item = (String, Value)>) {
        let mut all = Message::default();
        for (name, definition) in definitions {
            all.named(1, &name, schema(&definition));
        }
        self.0.message(9, all);
    }

    pub(super) fn parameters(&mut self, parameters: impl Iterator<Item = (String, Value)>) {
        let mut all = Message::default();
        for (name, one) in parameters {
            all.named(1, &name, parameter(&one));
        }
        self.0.message(10, all);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let mut requirement = Message::default();
        requirement.named(1, "BearerToken", Message::default());
        self.0.message(12, requirement);
        let mut key = Message::default();
        for (number, text) in [
            (1, "apiKey"),
            (2, "authorization"),
            (3, "header"),
            (4, "Bearer Token authentication"),
        ] {
            key.text(number, text);
        }
        let mut item = Message::default();
        item.message(2, key);
        let mut definitions = Message::default();
        definitions.named(1, "BearerToken", item);
        self.0.message(13, definitions);
        self.0.0
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    for (key, value) in entries(item) {
        match key.as_str() {
            "get" => out.message(2, operation(value)),
            "put" => out.message(3, operation(value)),
            "post" => out.message(4, operation(value)),
            "delete" => out.message(5, operation(value)),
            "options" => out.message(6, operation(value)),
            "head" => out.message(7, operation(value)),
            "patch" => out.message(8, operation(value)),
            "parameters" => parameters(&mut out, 9, value),
            _ => {}
        }
    }
    out
}

fn operation(operation: &Value) -> Message {
    let mut out = Message::default();
    for (key, value) in entries(operation) {
        match key.as_str() {
            "tags" => out.strings(1, value),
            "description" => out.str(3, value),
            "operationId" => out.str(5, value),
            "produces" => out.strings(6, value),
            "consumes" => out.strings(7, value),
            "parameters" => parameters(&mut out, 8, value),
            "responses" => out.message(9, responses(value)),
            "schemes" => out.strings(10, value),
            _ => out.extension(13, key, value),
        }
    }
    out
}

fn parameters(out: &mut Message, number: u64, parameters: &Value) {
    for one in parameters.as_array().into_iter().flatten() {
        let mut item = Message::default();
        match one.get("$ref") {
            Some(shared) => {
                let mut reference = Message::default();
                reference.str(1, shared);
                item.message(2, reference);
            }
            None => item.message(1, parameter(one)),
        }
        out.message(number, item);
    }
}

fn parameter(one: &Value) -> Message {
    let mut parameter = Message::default();
    if one["in"] == "body" {
        let mut body = Message::default();
        body.str(2, &one["name"]);
        body.str(3, &one["in"]);
        body.flag(4, &one["required"]);
        body.message(5, schema(&one["schema"]));
        parameter.message(1, body);
        return parameter;
    }
    let query = one["in"] == "query";
    let mut inner = Message::default();
    inner.flag(1, &one["required"]);
    inner.str(2, &one["in"]);
    inner.str(4, &one["name"]);
    inner.str(if query { 6 } else { 5 }, &one["type"]);
    inner.flag(if query { 20 } else { 19 }, &one["uniqueItems"]);
    let mut other = Message::default();
    other.message(if query { 3 } else { 4 }, inner);
    parameter.message(2, other);
    parameter
}

fn responses(responses: &Value) -> Message {
    let mut out = Message::default();
    for (code, answer) in entries(responses) {
        let mut response = Message::default();
        response.str(1, &answer["description"]);
        if let Some(content) = answer.get("schema") {
            let mut item = Message::default();
            item.message(1, schema(content));
            response.message(2, item);
        }
        let mut value = Message::default();
        value.message(1, response);
        out.named(1, code, value);
    }
    out
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    for (key, value) in entries(value) {
        match key.as_str() {
            "$ref" => out.str(1, value),
            "format" => out.str(2, value),
            "title" => out.str(3, value),
            "description" => out.str(4, value),
            "default" => out.any(5, value),
            "multipleOf" => out.double(6, value),
            "maximum" => out.double(7, value),
            "exclusiveMaximum" => out.flag(8, value),
            "minimum" => out.double(9, value),
            "exclusiveMinimum" => out.flag(10, value),
            "maxLength" => out.number(11, value),
            "minLength" => out.number(12, value),
            "pattern" => out.str(13, value),
            "maxItems" => out.number(14, value),
            "minItems" => out.number(15, value),
            "uniqueItems" => out.flag(16, value),
            "maxProperties" => out.number(17, value),
            "minProperties" => out.number(18, value),
            "required" => out.strings(19, value),
            "enum" => value.as_array().into_iter().flatten().for_each(|one| out.any(20, one)),
            "additionalProperties" => {
                let mut item = Message::default();
                item.message(1, schema(value));
                out.message(21, item);
            }
            "type" => {
                let mut types = Message::default();
                types.strings(1, value);
                out.message(22, types);
            }
            "items" => {
                let mut items = Message::default();
                items.message(1, schema(value));
                out.message(23, items);
            }
            "properties" => {
                let mut properties = Message::default();
                for (name, property) in entries(value) {
                    properties.named(1, name, schema(property));
                }
                out.message(25, properties);
            }
            _ => out.extension(31, key, value),
        }
    }
    out
}
