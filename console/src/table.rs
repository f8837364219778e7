//! Tables for people: no borders, as wide as the terminal, a block for each row where it is too
//! narrow for columns.

use std::{fmt, io};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Width, presets};

use crate::{print, show::printable, stdio};

/// Below this many columns for each cell, rows are printed as blocks.
const LEAST_CELL: usize = 10;
const GAP: usize = 2;

/// Rows under a heading. A cell is one line however it was given.
#[derive(Debug, Clone)]
pub struct Table {
    headings: Vec<&'static str>,
    right: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(headings: [&'static str; N]) -> Self {
        Table {
            headings: headings.to_vec(),
            right: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Aligns columns (counted from 0) to the right: numbers and sizes.
    pub fn right<const N: usize>(mut self, columns: [usize; N]) -> Self {
        self.right = columns.to_vec();
        self
    }

    /// Missing cells are empty, those beyond the headings are dropped.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        let mut row = cells
            .iter()
            .map(|cell| printable(cell).replace('\n', " "))
            .collect::<Vec<_>>();
        row.resize(self.headings.len(), String::new());
        self.rows.push(row);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Prints to stdout, as wide as its terminal; unbounded where stdout is none.
    pub fn print(&self) -> anyhow::Result<()> {
        print(&self.in_columns(stdio::columns(io::stdout())))
    }

    fn in_columns(&self, width: Option<usize>) -> String {
        let widest = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells
                .chain([self.headings[column].len()])
                .max()
                .unwrap_or(0)
        };
        let natural = (0..self.headings.len())
            .map(|column| widest(column) + GAP)
            .sum::<usize>();
        match width {
            Some(width) if natural > width + GAP => {
                if width / self.headings.len().max(1) < LEAST_CELL {
                    self.as_blocks()
                } else {
                    self.as_table(Some(width))
                }
            }
            _ => self.as_table(None),
        }
    }

    fn as_table(&self, width: Option<usize>) -> String {
        let mut table = comfy_table::Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_header(&self.headings)
            .add_rows(&self.rows);
        match width {
            Some(width) => {
                let width = u16::try_from(width).unwrap_or(u16::MAX);
                table
                    .set_width(width)
                    .set_content_arrangement(ContentArrangement::Dynamic);
            }
            None => {
                table.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        let last = self.headings.len().saturating_sub(1);
        for (place, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, if place == last { 0 } else { GAP as u16 }));
            if self.right.contains(&place) {
                column.set_cell_alignment(CellAlignment::Right);
                if width.is_some() {
                    // Numbers are not broken over lines.
                    let least = Width::Fixed(LEAST_CELL as u16);
                    column.set_constraint(ColumnConstraint::LowerBoundary(least));
                }
            }
        }
        let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
        lines.collect()
    }

    fn as_blocks(&self) -> String {
        let name = self
            .headings
            .iter()
            .map(|heading| heading.len())
            .max()
            .unwrap_or(0);
        let block = |row: &Vec<String>| {
            let cells = self.headings.iter().zip(row);
            let lines = cells.map(|(heading, cell)| {
                format!("{heading:name$}  {cell}").trim_end().to_owned() + "\n"
            });
            lines.collect::<String>()
        };
        self.rows.iter().map(block).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.in_columns(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points() -> Table {
        let mut table = Table::new(["VM", "POINT", "CAPTURED", "SIZE"]).right([1, 3]);
        table.row(["dc01", "7", "2026-11-22T08:56:12Z", "40 GiB"].map(String::from));
        table.row(["files-\x1b[1mx", "12", "2026-11-22T09:56:12Z", "1.5 TiB"].map(String::from));
        table
    }

    #[test]
    fn columns_without_borders() {
        assert_eq!(
            points().to_string(),
            "VM                POINT  CAPTURED                 SIZE\n\
             dc01                  7  2026-11-22T08:56:12Z   40 GiB\n\
             files-\\u{1b}[1mx     12  2026-11-22T09:56:12Z  1.5 TiB\n"
        );
    }

    #[test]
    fn forty_columns_are_enough() {
        let text = points().in_columns(Some(40));
        assert!(
            text.lines().all(|line| line.chars().count() <= 40),
            "{text}"
        );
        let mut wide = Table::new(["VM", "POINT", "CAPTURED", "SIZE", "CONSISTENCY"]);
        wide.row(["dc01", "7", "2026-11-22T08:56:12Z", "40 GiB", "crash"].map(String::from));
        wide.row(["db", "8", "2026-11-22T08:56:12Z", "", "none"].map(String::from));
        assert_eq!(
            wide.in_columns(Some(40)),
            "VM           dc01\nPOINT        7\nCAPTURED     2026-11-22T08:56:12Z\n\
             SIZE         40 GiB\nCONSISTENCY  crash\n\n\
             VM           db\nPOINT        8\nCAPTURED     2026-11-22T08:56:12Z\n\
             SIZE\nCONSISTENCY  none\n"
        );
    }
}
