//! What is wrong with a configuration, and what to do about it. No value of a secret may enter here.

use std::fmt;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `source[1].path` (tables of a list are counted from 0), or empty where it is the file as a whole.
    pub path: String,
    /// The line in the file, from 1, where one is to blame.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do; empty where the message says it.
    pub remedy: String,
}

/// Everything that is wrong with a configuration, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The file as the operator named it.
    pub file: String,
    /// In the order in which they were found.
    pub list: Vec<Problem>,
}

impl Problems {
    /// A single problem that concerns the file as a whole.
    pub fn one(file: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let problem = Problem { path: String::new(), line: None, message: message.into(), remedy: remedy.into() };
        Self { file: file.to_owned(), list: vec![problem] }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        self.line.map_or(Ok(()), |line| write!(f, " (line {line})"))
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{}: {problem}", self.file.escape_debug())?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
