//! As much of YAML as netplan's files have: mappings and lists by indentation, `[a, b]`, `{a: b}`, quotes, comments. No
//! anchors, no tags, no text over several lines; what is not understood is left out.

/// Mappings within mappings; netplan needs six.
const DEPTH: usize = 32;
const LINES: usize = 20_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Yaml {
    Text(String),
    List(Vec<Yaml>),
    Pairs(Vec<(String, Yaml)>),
}

impl Yaml {
    pub fn get(&self, key: &str) -> Option<&Yaml> {
        self.pairs()
            .iter()
            .find(|(own, _)| own == key)
            .map(|(_, value)| value)
    }

    pub fn pairs(&self) -> &[(String, Yaml)] {
        match self {
            Yaml::Pairs(pairs) => pairs,
            _ => &[],
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Yaml::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The texts of a list; of a list of mappings the keys (`- 10.0.0.2/24: {label: x}`).
    pub fn texts(&self) -> Vec<String> {
        let Yaml::List(items) = self else {
            return Vec::new();
        };
        let text = |item: &Yaml| match item {
            Yaml::Text(text) => Some(text.clone()),
            Yaml::Pairs(pairs) => Some(pairs.first()?.0.clone()),
            Yaml::List(_) => None,
        };
        items.iter().filter_map(text).collect()
    }
}

struct Line {
    indent: usize,
    text: String,
}

pub fn parse(text: &str) -> Yaml {
    let lines = text.lines().take(LINES).map(|line| {
        let line = without_comment(line);
        let text = line.trim_start();
        Line {
            indent: line.len() - text.len(),
            text: text.trim_end().to_owned(),
        }
    });
    let lines: Vec<Line> = lines
        .filter(|line| !line.text.is_empty() && line.text != "---")
        .collect();
    let mut at = 0;
    block(&lines, &mut at, 0, 0)
}

fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (index, c) in line.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') if before.is_whitespace() => return &line[..index],
            _ => {}
        }
        before = c;
    }
    line
}

/// The lines from `at` that are indented by `indent` or more.
fn block(lines: &[Line], at: &mut usize, indent: usize, depth: usize) -> Yaml {
    let Some(first) = lines
        .get(*at)
        .filter(|line| line.indent >= indent && depth < DEPTH)
    else {
        return Yaml::Text(String::new());
    };
    let own = first.indent;
    if is_item(&first.text) {
        let mut items = Vec::new();
        while let Some(line) = lines
            .get(*at)
            .filter(|line| line.indent == own && is_item(&line.text))
        {
            let rest = line.text[1..].trim_start();
            *at += 1;
            items.push(match key(rest) {
                _ if rest.is_empty() => block(lines, at, own + 1, depth + 1),
                Some((name, value)) if !rest.starts_with(['[', '{']) => {
                    let mut pairs = vec![(name, inline(value, 0))];
                    // More keys of the same item, under the first one.
                    if let Yaml::Pairs(more) = block(lines, at, own + 1, depth + 1) {
                        pairs.extend(more);
                    }
                    Yaml::Pairs(pairs)
                }
                _ => inline(rest, 0),
            });
        }
        return Yaml::List(items);
    }
    let mut pairs = Vec::new();
    while let Some(line) = lines.get(*at).filter(|line| line.indent >= own) {
        *at += 1;
        let Some((name, value)) = key(&line.text).filter(|_| line.indent == own) else {
            continue;
        };
        let value = match value {
            "" => {
                // A list may stand at the indentation of its key.
                let list = lines
                    .get(*at)
                    .is_some_and(|next| next.indent == own && is_item(&next.text));
                block(lines, at, if list { own } else { own + 1 }, depth + 1)
            }
            value => inline(value, 0),
        };
        pairs.push((name, value));
    }
    Yaml::Pairs(pairs)
}

fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

/// `name: value`; a colon ends the name only before a blank or at the end.
fn key(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| ['"', '\''].contains(c));
    let from = match quote {
        Some(quote) => text[1..].find(quote)? + 2,
        None => 0,
    };
    let mut colons = text
        .get(from..)?
        .match_indices(':')
        .map(|(index, _)| from + index);
    let end = colons.find(|end| {
        text[end + 1..].is_empty() || text[end + 1..].starts_with(char::is_whitespace)
    })?;
    Some((unquoted(&text[..end]).to_owned(), text[end + 1..].trim()))
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    let within = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(text)
}

/// `[a, b]`, `{a: b}` or a text.
fn inline(text: &str, depth: usize) -> Yaml {
    let text = text.trim();
    let within = |open, close| text.strip_prefix(open)?.strip_suffix(close);
    if depth < DEPTH {
        if let Some(inner) = within('[', ']') {
            return Yaml::List(
                split(inner)
                    .into_iter()
                    .map(|item| inline(item, depth + 1))
                    .collect(),
            );
        }
        if let Some(inner) = within('{', '}') {
            let pairs = split(inner).into_iter().filter_map(|item| {
                let (name, value) = key(item.trim())?;
                Some((name, inline(value, depth + 1)))
            });
            return Yaml::Pairs(pairs.collect());
        }
    }
    Yaml::Text(unquoted(text).to_owned())
}

/// At the commas that are within no brackets and no quotes.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut from, mut open, mut quote) = (0, 0_usize, None);
    for (index, c) in text.char_indices() {
        match (quote, c) {
            (Some(own), c) if own == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => open += 1,
            (None, ']' | '}') => open = open.saturating_sub(1),
            (None, ',') if open == 0 => {
                parts.push(&text[from..index]);
                from = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}
