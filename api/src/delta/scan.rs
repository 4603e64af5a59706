//! Finds the end of JSON that comes in pieces.

/// Follows JSON as it comes, and finds where the outermost object or array ends.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    depth: u32,
    string: bool,
    escaped: bool,
    /// The outermost object or array has been closed.
    pub(crate) complete: bool,
}

impl Scan {
    pub(crate) fn feed(&mut self, text: &str) {
        for byte in text.bytes() {
            if self.string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.complete |= self.depth == 0;
                }
                _ => {}
            }
        }
    }
}
