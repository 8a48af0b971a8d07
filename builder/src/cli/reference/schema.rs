//! A JSON Schema as tables for people: one for the root, one for each type that it names.
//! Must not know: which schema it is.
//! Spec: JSON Schema 2020-12 as far as schemars writes it for our structs; CommonMark with tables.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The tables of a schema, each type below the one that names it first.
pub fn tables(root: &Value) -> String {
    let mut out = String::new();
    let mut page = Page { root, types: Vec::new() };
    match root.get("items") {
        Some(items) => {
            let (name, item) = page.follow(items);
            page.types.extend(name.map(|name| (name.to_owned(), item)));
            out.push_str("A list of these:\n\n");
            page.body(item, &mut out);
        }
        None => page.body(root, &mut out),
    }
    let mut at = usize::from(root.get("items").is_some());
    while let Some((name, schema)) = page.types.get(at).cloned() {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "\n**{name}**\n");
        page.body(schema, &mut out);
        at = at.saturating_add(1);
    }
    out
}

/// Text that may stand in a cell of a table.
pub fn cell(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    // Outside of code, `<base>` would be taken for HTML.
    let parts = line.split('`').enumerate();
    let parts = parts.map(|(i, part)| if i % 2 == 0 { part.replace('<', "\\<") } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("`")
}

/// One schema on its way to a page.
struct Page<'a> {
    root: &'a Value,
    /// Types with a table of their own, in the order in which they were named.
    types: Vec<(String, &'a Value)>,
}

impl<'a> Page<'a> {
    fn body(&mut self, schema: &'a Value, out: &mut String) {
        if let Some(text) = described(schema) {
            let _ = writeln!(out, "{}\n", cell(text));
        }
        if let Some(properties) = properties(schema) {
            self.table(schema, properties, out);
        }
        let forms = variants(schema).into_iter().filter_map(|form| Some((form, properties(form)?)));
        for (at, (form, properties)) in forms.enumerate() {
            let lead = if at == 0 { "Either:" } else { "\nOr:" };
            let _ = writeln!(out, "{lead} {}\n", cell(described(form).unwrap_or("one with")));
            self.table(form, properties, out);
        }
    }

    fn table(&mut self, schema: &Value, properties: &'a Map<String, Value>, out: &mut String) {
        let required: Vec<&str> = list(schema, "required").iter().filter_map(|key| key.as_str()).collect();
        out.push_str("| key | type | required | |\n|---|---|---|---|\n");
        for (key, value) in properties {
            let kind = self.kind(key, value);
            let required = if required.contains(&key.as_str()) { "yes" } else { "" };
            let text = cell(described(value).unwrap_or_default());
            let _ = writeln!(out, "| `{key}` | {} | {required} | {text} |", cell(&kind));
        }
    }

    /// A value's type in words. A type with a table of its own is noted, under its name or that of the key.
    fn kind(&mut self, key: &str, schema: &'a Value) -> String {
        let (name, schema) = self.follow(schema);
        if properties(schema).is_some() || variants(schema).iter().any(|form| properties(form).is_some()) {
            let name = name.unwrap_or(key);
            if !self.types.iter().any(|(known, _)| known == name) {
                self.types.push((name.to_owned(), schema));
            }
            return name.to_owned();
        }
        let values = values(schema);
        if !values.is_empty() {
            return values.join(", ");
        }
        for alternatives in ["anyOf", "oneOf"].map(|word| list(schema, word)) {
            if !alternatives.is_empty() {
                return alternatives.iter().map(|one| self.kind(key, one)).collect::<Vec<_>>().join(" or ");
            }
        }
        let types = match schema.get("type") {
            Some(one @ Value::String(_)) => std::slice::from_ref(one),
            Some(Value::Array(all)) => all,
            _ => return "anything".into(),
        };
        let words = types.iter().filter_map(Value::as_str);
        words.map(|word| self.word(word, key, schema)).collect::<Vec<_>>().join(" or ")
    }

    fn word(&mut self, word: &str, key: &str, schema: &'a Value) -> String {
        match (word, schema.get("items"), schema.get("additionalProperties")) {
            ("array", Some(items), _) => format!("list of {}", self.kind(key, items)),
            ("object", _, Some(values @ Value::Object(_))) => format!("{} by name", self.kind(key, values)),
            ("object", ..) => "table".into(),
            (other, ..) => other.into(),
        }
    }

    /// The type that a reference leads to, and its name.
    fn follow(&self, schema: &'a Value) -> (Option<&'a str>, &'a Value) {
        let reference = schema.get("$ref").and_then(Value::as_str);
        match reference.and_then(|reference| reference.strip_prefix("#/$defs/")) {
            Some(name) => (Some(name), &self.root["$defs"][name]),
            None => (None, schema),
        }
    }
}

fn described(schema: &Value) -> Option<&str> {
    schema.get("description").and_then(Value::as_str)
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties").and_then(Value::as_object)
}

fn list<'a>(schema: &'a Value, word: &str) -> &'a [Value] {
    schema.get(word).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The forms of an enum whose variants have fields, or texts.
fn variants(schema: &Value) -> Vec<&Value> {
    list(schema, "oneOf").iter().collect()
}

/// The values of an enum, in the three forms that schemars writes.
fn values(schema: &Value) -> Vec<String> {
    let one = schema.get("const").into_iter();
    let consts = variants(schema).into_iter().filter_map(|form| form.get("const"));
    let all = list(schema, "enum").iter().chain(one).chain(consts);
    all.filter(|value| !value.is_null()).map(|value| format!("`{value}`")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_becomes_tables() {
        let schema = json!({
            "items": { "$ref": "#/$defs/Row" },
            "$defs": {
                "Row": {
                    "description": "One row.",
                    "properties": {
                        "name": { "type": "string", "description": "Of `<it>`,\nnot <b>|." },
                        "how": { "anyOf": [{ "$ref": "#/$defs/How" }, { "type": "null" }] },
                        "in": { "type": "object", "properties": {
                            "x": { "type": "object", "additionalProperties": { "type": "integer" } },
                        } },
                        "parts": { "type": "array", "items": { "$ref": "#/$defs/Row" } },
                    },
                    "required": ["name"],
                },
                "How": { "enum": ["fast", "slow"] },
            },
        });
        assert_eq!(
            tables(&schema),
            "A list of these:\n\nOne row.\n\n| key | type | required | |\n|---|---|---|---|\n\
             | `how` | `\"fast\"`, `\"slow\"` or null |  |  |\n| `in` | in |  |  |\n| `name` | string | yes | Of `<it>`, not \\<b>\\|. |\n\
             | `parts` | list of Row |  |  |\n\n**in**\n\n| key | type | required | |\n|---|---|---|---|\n\
             | `x` | integer by name |  |  |\n"
        );
    }
}
