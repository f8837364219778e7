//! The script language of GRUB 2, parsed as far as a grub.cfg needs it (GRUB manual, 12 "Writing full configuration
//! files"): words with quotes and variables, `if`, functions and loops (passed over), menu entries.

/// Blocks within blocks; grub-mkconfig writes four.
const DEPTH: usize = 32;

/// A part of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Literal(String),
    Variable(String),
}

/// What is between blanks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    pub pieces: Vec<Piece>,
    /// It stays a word even when it is empty.
    pub quoted: bool,
}

impl Word {
    /// The text of a word without variables and quotes: a keyword may be.
    fn bare(&self) -> Option<&str> {
        match &self.pieces[..] {
            [Piece::Literal(text)] if !self.quoted => Some(text),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Simple(Vec<Word>),
    /// Conditions with what they lead to; then what is done otherwise.
    If(Vec<(Vec<Command>, Vec<Command>)>, Vec<Command>),
    /// `menuentry` and `submenu`: what stands before the brace, and the block.
    Menu {
        submenu: bool,
        words: Vec<Word>,
        body: Vec<Command>,
    },
}

#[derive(Debug)]
enum Token {
    Word(Word),
    End,
}

/// Words and ends of commands.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut word: Option<Word> = None;
    let mut chars = text.chars().peekable();
    let literal = |word: &mut Option<Word>, c: char| {
        let pieces = &mut word.get_or_insert_default().pieces;
        match pieces.last_mut() {
            Some(Piece::Literal(text)) => text.push(c),
            _ => pieces.push(Piece::Literal(c.into())),
        }
    };
    let mut double = false;
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                double = !double;
                word.get_or_insert_default().quoted = true;
            }
            '$' => match variable(&mut chars) {
                Some(name) => word
                    .get_or_insert_default()
                    .pieces
                    .push(Piece::Variable(name)),
                None => literal(&mut word, '$'),
            },
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(next) => {
                    // Within double quotes a backslash is itself but before these.
                    if double && !['"', '$', '\\'].contains(&next) {
                        literal(&mut word, '\\');
                    }
                    literal(&mut word, next);
                    word.get_or_insert_default().quoted = true;
                }
            },
            c if double => literal(&mut word, c),
            '\'' => {
                word.get_or_insert_default().quoted = true;
                for c in chars.by_ref().take_while(|c| *c != '\'') {
                    literal(&mut word, c);
                }
            }
            '#' if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            '\n' | ';' => {
                tokens.extend(word.take().map(Token::Word));
                tokens.push(Token::End);
            }
            c if c.is_whitespace() => tokens.extend(word.take().map(Token::Word)),
            c => literal(&mut word, c),
        }
    }
    tokens.extend(word.take().map(Token::Word));
    tokens
}

fn variable(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    if chars.next_if_eq(&'{').is_some() {
        return Some(chars.by_ref().take_while(|c| *c != '}').collect());
    }
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    if name.is_empty() {
        name.extend(chars.next_if(|c| "?*#@".contains(*c)));
    }
    (!name.is_empty()).then_some(name)
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    depth: usize,
}

/// All commands of a script; what does not hold together is passed over.
pub fn parse(text: &str) -> Vec<Command> {
    let mut parser = Parser {
        tokens: tokens(text).into_iter().peekable(),
        depth: 0,
    };
    let mut all = Vec::new();
    loop {
        all.extend(parser.commands(&[]));
        // A closing word that closes nothing.
        if parser.tokens.next().is_none() {
            return all;
        }
    }
}

impl Parser {
    fn bare(&mut self) -> Option<&str> {
        match self.tokens.peek()? {
            Token::Word(word) => word.bare(),
            Token::End => None,
        }
    }

    /// Commands up to one of the words, which stays; all of them close a block somewhere.
    fn commands(&mut self, until: &[&str]) -> Vec<Command> {
        const CLOSING: [&str; 6] = ["then", "elif", "else", "fi", "done", "}"];
        let mut all = Vec::new();
        self.depth += 1;
        loop {
            while matches!(self.tokens.peek(), Some(Token::End)) {
                self.tokens.next();
            }
            if self.tokens.peek().is_none() || self.depth > DEPTH {
                break;
            }
            let word = self.bare().unwrap_or_default().to_owned();
            if until.contains(&word.as_str()) || CLOSING.contains(&word.as_str()) {
                break;
            }
            match word.as_str() {
                "if" => all.push(self.conditional()),
                "menuentry" | "submenu" => {
                    self.tokens.next();
                    let words = self.words(true);
                    let body = self.block();
                    let submenu = word == "submenu";
                    all.push(Command::Menu {
                        submenu,
                        words,
                        body,
                    });
                }
                "function" => {
                    self.words(true);
                    self.block();
                }
                "{" => all.extend(self.block()),
                "while" | "until" | "for" => {
                    self.words(false);
                    self.commands(&["done"]);
                    self.tokens.next();
                }
                _ => all.push(Command::Simple(self.words(false))),
            }
        }
        self.depth -= 1;
        all
    }

    /// The words up to the end of the command, or up to a brace.
    fn words(&mut self, to_brace: bool) -> Vec<Word> {
        let mut words = Vec::new();
        while !(to_brace && self.bare() == Some("{")) {
            match self.tokens.next() {
                Some(Token::Word(word)) => words.push(word),
                Some(Token::End) if to_brace && self.bare() == Some("{") => {}
                _ => break,
            }
        }
        words
    }

    /// `{ … }`, where it begins here.
    fn block(&mut self) -> Vec<Command> {
        if self.bare() != Some("{") {
            return Vec::new();
        }
        self.tokens.next();
        let mut body = Vec::new();
        loop {
            body.extend(self.commands(&["}"]));
            // Up to the brace also past a word that closes nothing here, but not in too deep a nest.
            let deep = self.depth >= DEPTH;
            match self.bare() {
                Some("}") | None => break,
                Some(_) if deep => break,
                Some(_) => {}
            }
            self.tokens.next();
        }
        self.tokens.next();
        body
    }

    fn conditional(&mut self) -> Command {
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            self.tokens.next();
            let condition = self.commands(&["then"]);
            if self.bare() == Some("then") {
                self.tokens.next();
            }
            branches.push((condition, self.commands(&["elif", "else", "fi"])));
            match self.bare() {
                Some("elif") => continue,
                Some("else") => {
                    self.tokens.next();
                    otherwise = self.commands(&["fi"]);
                }
                _ => {}
            }
            if self.bare() == Some("fi") {
                self.tokens.next();
            }
            return Command::If(branches, otherwise);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simple(command: &Command) -> Vec<String> {
        let Command::Simple(words) = command else {
            panic!("{command:?}")
        };
        let piece = |piece: &Piece| match piece {
            Piece::Literal(text) => text.clone(),
            Piece::Variable(name) => format!("<{name}>"),
        };
        let word = |word: &Word| word.pieces.iter().map(piece).collect();
        words.iter().map(word).collect()
    }

    #[test]
    fn words_are_told_apart() {
        let all = parse(
            "linux /vmlinuz-${v} a=\"b c\" 'd $e' \\\n f\\ g # no\nset x=\"\"; boot # comment\n#x\n",
        );
        assert_eq!(
            simple(&all[0]),
            ["linux", "/vmlinuz-<v>", "a=b c", "d $e", "f g", "#", "no"].map(str::to_owned)[..5]
        );
        assert_eq!(simple(&all[1]), ["set", "x="]);
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn blocks_nest() {
        let text = "if [ -s x ]; then\n set a=1\nelif true; then set a=2; else\n if false ; then b\n fi\nfi\n\
                    function f {\n if x; then y; fi\n}\nsubmenu 'More' $id {\n menuentry \"One\" --id one {\n linux /k\n }\n}\nend";
        let all = parse(text);
        assert_eq!(all.len(), 3, "{all:?}");
        let Command::If(branches, otherwise) = &all[0] else {
            panic!()
        };
        assert_eq!((branches.len(), otherwise.len()), (2, 1));
        let Command::Menu { submenu, body, .. } = &all[1] else {
            panic!()
        };
        assert!(
            *submenu
                && matches!(&body[0], Command::Menu { submenu: false, body, .. } if body.len() == 1)
        );
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "if x; then ".repeat(5000) + &"menuentry a { ".repeat(5000) + &"fi ".repeat(100);
        let _ = parse(&deep);
        let _ = parse(&"{ ".repeat(100_000));
    }

    proptest::proptest! {
        #[test]
        fn any_script_is_parsed(text in "(?s).{0,200}", words in "(if|then|fi|else|menuentry|submenu|function|\\{|\\}|;|\n|\\$|\"|'| |x){0,60}") {
            let _ = (parse(&text), parse(&words));
        }
    }
}
