//! Strict loading of TOML: the file is compared with the JSON Schema of the wire struct, all that
//! differs is reported, and what fits is handed on, so that later checks report too.
//! Must not know: which files there are.
//! Spec: TOML 1.1; JSON Schema 2020-12 as far as schemars writes it for our structs.
//!
//! A wire struct derives `Deserialize` and `JsonSchema`, has `#[schemars(deny_unknown_fields)]` (on
//! serde's side unknown keys are let through, for they were reported and dropped before), and an
//! `Option` or a default for every field: one that must be there has `#[schemars(required)]`. So the
//! schema that editors complete from and the one that is enforced are one thing. A key that deserves
//! a text of its own is refused with `#[schemars(extend("x-refused" = { "password": "…" }))]`.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::LazyLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::{Report, Source, nearest};

/// Reads a file as a `T`. What is malformed, unknown, missing or of the wrong type becomes a
/// finding, and the rest is returned; `None` only when the file is no TOML.
pub fn load<T: DeserializeOwned + JsonSchema>(source: &Source, report: &mut Report) -> Option<T> {
    let (table, errors) = DeTable::parse_recoverable(source.text());
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        report.add(source.place(at), one_line(error.message()));
    }
    if !errors.is_empty() {
        return None;
    }
    let root = schema::<T>();
    let span = table.span();
    let mut document = Spanned::new(span, DeValue::Table(table.into_inner()));
    Checker { root: &root, source, report }.keep(&root, &mut document, "the file");
    match T::deserialize(toml::de::ValueDeserializer::from(document)) {
        Ok(value) => Some(value),
        Err(error) => {
            // Only values that the schema cannot describe get here.
            let at = error.span().map_or(0, |span| span.start);
            report.add(source.place(at), one_line(error.message()));
            None
        }
    }
}

/// The schema of a wire struct, without the `null`s that TOML cannot write.
pub fn schema<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    let mut value = Value::from(generator.into_root_schema_for::<T>());
    drop_nulls(&mut value);
    value
}

/// The schema as it is committed under `docs/schema/`.
pub fn schema_text<T: JsonSchema>() -> String {
    format!("{:#}\n", schema::<T>())
}

/// As deep as our own structs nest, never as deep as an input.
fn drop_nulls(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|t| t != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    map.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(any)) = map.get_mut("anyOf") {
                any.retain(|s| s.get("type").is_none_or(|t| t != "null"));
            }
            map.retain(|key, value| {
                !(key == "default" && (value.is_null() || *value == Value::Array(vec![])))
            });
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(all) => all.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn one_line(message: &str) -> String {
    message.trim().replace('\n', ", ")
}

static NO_KEYS: LazyLock<serde_json::Map<String, Value>> = LazyLock::new(Default::default);
static ANYTHING: Value = Value::Bool(true);

struct Checker<'a> {
    root: &'a Value,
    source: &'a Source,
    report: &'a mut Report,
}

impl<'a> Checker<'a> {
    /// Checks one value and says whether it may stay. The TOML parser nests at most 80 deep, and so
    /// does this.
    fn keep(&mut self, schema: &'a Value, value: &mut Spanned<DeValue<'_>>, name: &str) -> bool {
        let schema = self.choose(schema, value.get_ref());
        let span = value.span();
        if let Some(types) = wrong_type(schema, value.get_ref()) {
            let found = with_article(value.get_ref().type_str());
            self.add(&span, format!("{name} is {found}, {types} is wanted"));
            return false;
        }
        if let Some(allowed) = allowed_values(schema) {
            return self.keep_listed(&allowed, value, name);
        }
        match value.get_mut() {
            DeValue::Table(table) => self.check_table(schema, table, &span, name),
            DeValue::Array(array) => {
                if let Some(items) = schema.get("items") {
                    let name = format!("an entry of {name}");
                    *array = std::mem::replace(array, DeArray::from_iter([]))
                        .into_iter()
                        .filter_map(|mut item| self.keep(items, &mut item, &name).then_some(item))
                        .collect();
                }
            }
            DeValue::Integer(number) => return self.keep_integer(schema, number, &span, name),
            _ => {}
        }
        true
    }

    fn check_table(&mut self, schema: &'a Value, table: &mut DeTable<'_>, span: &Range<usize>, name: &str) {
        let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&*NO_KEYS);
        let others = schema.get("additionalProperties");
        let refused = schema.get("x-refused");
        for key in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if let Some(key) = key.as_str().filter(|key| !table.contains_key(*key)) {
                self.add(span, format!("key `{key}` is missing in {name}"));
            }
        }
        *table = std::mem::take(table)
            .into_iter()
            .filter_map(|(key, mut value)| {
                let word = key.get_ref().as_ref();
                let (schema, is_known) = match known.get(word) {
                    Some(schema) => (schema, true),
                    None => (others.unwrap_or(&ANYTHING), others != Some(&Value::Bool(false))),
                };
                if !is_known {
                    let place = self.source.place(key.span().start);
                    match refused.and_then(|r| r.get(word)).and_then(Value::as_str) {
                        Some(why) => self.report.add(place, why),
                        None => self.report.add_unknown(place, "key", word, known.keys().map(String::as_str)),
                    }
                }
                (is_known && self.keep(schema, &mut value, &format!("`{word}`"))).then_some((key, value))
            })
            .collect();
    }

    fn keep_listed(&mut self, allowed: &[&'a Value], value: &Spanned<DeValue<'_>>, name: &str) -> bool {
        let word = match value.get_ref() {
            DeValue::Boolean(b) => Value::Bool(*b),
            DeValue::String(s) => Value::String(s.to_string()),
            other => Value::String(format!("{other:?}")),
        };
        if allowed.contains(&&word) {
            return true;
        }
        let shown = word.as_str().map_or_else(|| word.to_string(), |s| format!("`{s}`"));
        let names = || allowed.iter().filter_map(|v| v.as_str());
        let list = allowed.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), |s| format!("`{s}`")));
        let message = format!("{name} is {shown}, wanted is one of {}", list.collect::<Vec<_>>().join(", "));
        let place = self.source.place(value.span().start);
        match word.as_str().and_then(|word| nearest(word, names())) {
            Some(near) => self.report.add_with_hint(place, message, format!("did you mean `{near}`?")),
            None => self.report.add(place, message),
        }
        false
    }

    fn keep_integer(
        &mut self,
        schema: &Value,
        number: &toml::de::DeInteger<'_>,
        span: &Range<usize>,
        name: &str,
    ) -> bool {
        let highest = match schema.get("format").and_then(Value::as_str) {
            Some("uint32") => u64::from(u32::MAX),
            // TOML's integers are signed and of 64 bits.
            Some("uint64") => i64::MAX.unsigned_abs(),
            _ => return true,
        };
        let fits = u64::from_str_radix(number.as_str(), number.radix()).is_ok_and(|n| n <= highest);
        if !fits {
            self.add(span, format!("{name} is {number}, wanted is a number from 0 to {highest}"));
        }
        fits
    }

    /// Follows references, and picks the alternative that has the value's type.
    fn choose(&self, schema: &'a Value, value: &DeValue<'_>) -> &'a Value {
        let mut schema = schema;
        // References of our own schemas do not form circles; the bound is for safety alone.
        for _ in 0..16 {
            let reference = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
            let any = schema.get("anyOf").and_then(Value::as_array);
            let next = match (reference, any) {
                (Some(pointer), _) => self.root.pointer(pointer),
                (None, Some(any)) => any
                    .iter()
                    .find(|s| s.get("$ref").is_some() || wrong_type(s, value).is_none())
                    .or(any.first()),
                (None, None) => None,
            };
            match next {
                Some(next) => schema = next,
                None => break,
            }
        }
        schema
    }

    fn add(&mut self, span: &Range<usize>, message: String) {
        self.report.add(self.source.place(span.start), message);
    }
}

/// The types that the schema wants, in words, when the value has none of them.
fn wrong_type(schema: &Value, value: &DeValue<'_>) -> Option<String> {
    let wanted: Vec<&str> = match schema.get("type")? {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let found = match value {
        DeValue::Table(_) => "object",
        other => other.type_str(),
    };
    if wanted.contains(&found) || (found == "integer" && wanted.contains(&"number")) {
        return None;
    }
    let mut words = String::new();
    for (i, word) in wanted.iter().enumerate() {
        let word = if *word == "object" { "table" } else { word };
        // Writing to a String cannot fail.
        let _ = write!(words, "{}{}", if i == 0 { "" } else { " or " }, with_article(word));
    }
    Some(words)
}

fn with_article(noun: &str) -> String {
    let an = noun.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {noun}", if an { "an" } else { "a" })
}

/// The values of an enumeration, in both forms that schemars writes.
fn allowed_values(schema: &Value) -> Option<Vec<&Value>> {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return Some(values.iter().collect());
    }
    let one_of = schema.get("oneOf").and_then(Value::as_array)?;
    Some(one_of.iter().filter_map(|s| s.get("const")).collect())
}

#[cfg(test)]
mod tests;
