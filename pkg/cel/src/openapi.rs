//! A schema as the JSON that a CustomResourceDefinition has.

use serde_json::Value as Json;

use crate::decl::Source;

impl Source for Json {
    fn word(&self) -> &str {
        text(self, "type")
    }

    fn format(&self) -> &str {
        text(self, "format")
    }

    fn is_int_or_string(&self) -> bool {
        self["x-kubernetes-int-or-string"] == true
    }

    fn is_nullable(&self) -> bool {
        self["nullable"] == true
    }

    fn preserves_unknown(&self) -> bool {
        self["x-kubernetes-preserve-unknown-fields"] == true
    }

    fn is_embedded(&self) -> bool {
        self["x-kubernetes-embedded-resource"] == true
    }

    fn has_default(&self) -> bool {
        !self["default"].is_null()
    }

    fn max(&self) -> Option<i64> {
        let named = match self.word() {
            "array" => "maxItems",
            "object" => "maxProperties",
            _ => "maxLength",
        };
        self[named].as_i64()
    }

    fn longest_choice(&self) -> Option<usize> {
        let choices = self["enum"].as_array().filter(|choices| !choices.is_empty())?;
        Some(choices.iter().filter_map(Json::as_str).map(str::len).max().unwrap_or(0))
    }

    fn requires(&self, property: &str) -> bool {
        self["required"]
            .as_array()
            .is_some_and(|required| required.iter().any(|name| name == property))
    }

    fn items(&self) -> Option<&dyn Source> {
        schema(self, "items")
    }

    fn values(&self) -> Option<&dyn Source> {
        schema(self, "additionalProperties")
    }

    fn properties(&self) -> Option<Vec<(&str, &dyn Source)>> {
        let properties = self["properties"].as_object()?;
        Some(
            properties
                .iter()
                .map(|(name, of)| (name.as_str(), of as &dyn Source))
                .collect(),
        )
    }

    fn list_type(&self) -> &str {
        text(self, "x-kubernetes-list-type")
    }

    fn list_keys(&self) -> Vec<&str> {
        self["x-kubernetes-list-map-keys"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
            .collect()
    }
}

fn text<'j>(schema: &'j Json, key: &str) -> &'j str {
    schema[key].as_str().unwrap_or_default()
}

fn schema<'j>(of: &'j Json, key: &str) -> Option<&'j dyn Source> {
    of.get(key)
        .filter(|schema| schema.is_object())
        .map(|schema| schema as &dyn Source)
}
