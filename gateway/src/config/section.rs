//! A table of the file, read key by key: what is not known is refused, what is not in this version
//! is refused as that, and a value of the wrong kind says what it must be.

use std::{fmt, ops::Range, str::FromStr};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{nearest::nearest, problem::Notes};

pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// The keys a table may have.
pub(super) struct Keys {
    pub known: &'static [&'static str],
    /// Documented, and not enforced by this version.
    pub later: &'static [&'static str],
}

pub(super) struct Section<'t> {
    /// How messages call it: `[vault]`, `VM "dc01"`; empty for the file itself.
    name: String,
    table: &'t DeTable<'t>,
    span: Option<Range<usize>>,
}

impl<'t> Section<'t> {
    pub fn root(table: &'t DeTable<'t>) -> Self {
        Section {
            name: String::new(),
            table,
            span: None,
        }
    }

    /// `None`, and noted, if the value is no table.
    pub fn of(name: &str, value: &'t Value<'t>, notes: &mut Notes) -> Option<Self> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            wrong_kind(name, value, "a table", notes);
        }
        Some(Section {
            name: name.to_owned(),
            table: table?,
            span: Some(value.span()),
        })
    }

    pub fn rename(&mut self, name: String) {
        self.name = name;
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    fn inside(&self) -> String {
        if self.name.is_empty() {
            String::new()
        } else {
            format!(" in {}", self.name)
        }
    }

    /// Notes every key that is not known, with the one it was probably meant to be.
    pub fn check_keys(&self, keys: &Keys, notes: &mut Notes) {
        for (key, _) in self.table {
            let name = key.get_ref().as_ref();
            if keys.known.contains(&name) {
                continue;
            }
            let inside = self.inside();
            let note = if keys.later.contains(&name) {
                format!("`{name}`{inside} is not in this version: remove it")
            } else {
                let all = keys.known.iter().chain(keys.later).copied();
                match nearest(name, all) {
                    Some(meant) => format!("unknown key `{name}`{inside}: did you mean `{meant}`?"),
                    None => format!(
                        "unknown key `{name}`{inside}: known are {}",
                        listed(keys.known)
                    ),
                }
            };
            notes.at(&key.span(), note);
        }
    }

    pub fn get(&self, key: &str) -> Option<&'t Value<'t>> {
        self.table.get(key)
    }

    /// Notes a key that is not there.
    pub fn required(&self, key: &str, example: &str, notes: &mut Notes) -> Option<&'t Value<'t>> {
        let value = self.get(key);
        if value.is_none() {
            let note = format!("`{key}` is missing{}: write {example}", self.inside());
            match &self.span {
                Some(span) => notes.at(span, note),
                None => notes.missing(note),
            }
        }
        value
    }

    /// `key` as messages call it: "`url` in [vault]".
    pub fn called(&self, key: &str) -> String {
        format!("`{key}`{}", self.inside())
    }
}

/// The text of a string value; anything else is noted.
pub(super) fn text<'t>(name: &str, value: &'t Value<'t>, notes: &mut Notes) -> Option<&'t str> {
    let text = value.get_ref().as_str();
    match text {
        None => wrong_kind(name, value, "a string in quotes", notes),
        Some("") => notes.at(&value.span(), format!("{name} is empty")),
        Some(_) => {}
    }
    text.filter(|text| !text.is_empty())
}

/// A string that is read by its type, whose error says what it takes.
pub(super) fn parsed<T>(name: &str, value: &Value, notes: &mut Notes) -> Option<T>
where
    T: FromStr<Err: fmt::Display>,
{
    let result = text(name, value, notes)?.parse();
    result
        .map_err(|error| notes.at(&value.span(), format!("{name}: {error}")))
        .ok()
}

/// One of a few words.
pub(super) fn word<T: Copy>(
    name: &str,
    value: &Value,
    words: &[(&str, T)],
    notes: &mut Notes,
) -> Option<T> {
    let given = text(name, value, notes)?;
    let found = words.iter().find(|(word, _)| *word == given);
    if found.is_none() {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        notes.at(
            &value.span(),
            format!("{name} is {given:?}: it must be one of {}", listed(&words)),
        );
    }
    found.map(|(_, meaning)| *meaning)
}

pub(super) fn flag(name: &str, value: &Value, notes: &mut Notes) -> Option<bool> {
    let flag = value.get_ref().as_bool();
    if flag.is_none() {
        wrong_kind(name, value, "true or false", notes);
    }
    flag
}

/// A whole number in a range.
pub(super) fn count(
    name: &str,
    value: &Value,
    range: std::ops::RangeInclusive<u32>,
    notes: &mut Notes,
) -> Option<u32> {
    let wanted = format!("a whole number from {} to {}", range.start(), range.end());
    let Some(integer) = value.get_ref().as_integer() else {
        wrong_kind(name, value, &wanted, notes);
        return None;
    };
    let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
    let number = number.filter(|number| range.contains(number));
    if number.is_none() {
        let note = format!("{name} is {}: it must be {wanted}", integer.as_str());
        notes.at(&value.span(), note);
    }
    number
}

/// The elements of an array; anything else is noted.
pub(super) fn list<'t>(name: &str, value: &'t Value<'t>, notes: &mut Notes) -> &'t [Value<'t>] {
    match value.get_ref().as_array() {
        Some(array) => array,
        None => {
            wrong_kind(name, value, "a list", notes);
            &[]
        }
    }
}

/// The tables under `[[key]]`.
pub(super) fn tables<'t>(key: &str, value: &'t Value<'t>, notes: &mut Notes) -> &'t [Value<'t>] {
    if value.get_ref().is_table() {
        let note = format!("`{key}` is one table: write [[{key}]] with two brackets");
        notes.at(&value.span(), note);
        return &[];
    }
    list(&format!("`{key}`"), value, notes)
}

pub(super) fn wrong_kind(name: &str, value: &Value, wanted: &str, notes: &mut Notes) {
    let given = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    notes.at(
        &value.span(),
        format!("{name} is {given}: it must be {wanted}"),
    );
}

fn listed(words: &[&str]) -> String {
    words
        .iter()
        .map(|word| format!("`{word}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
