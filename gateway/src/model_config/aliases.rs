//! What a name stands for, through aliases of aliases; pure.

use std::collections::HashMap;

use tokenbus_protocol::Labels;

use super::splice::Defaults;

/// Most models that one request may try.
pub(super) const MAX_TARGETS: usize = 32;

/// A model to which a request may go.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The name that its workers announce.
    pub model: String,
    /// Members to add where the request does not set them.
    pub defaults: Defaults,
    /// Labels that every worker must have that gets the request: those of all names on the way to this model.
    pub require: Labels,
}

/// One name, as it is written.
#[derive(Debug)]
pub(super) struct Written<'a> {
    /// What it stands for; itself if there is nothing.
    pub(super) targets: &'a [String],
    /// Labels that its requests require.
    pub(super) require: &'a Labels,
    /// Members to add.
    pub(super) defaults: Defaults,
}

/// The file's contents by name, while aliases of aliases are resolved.
#[derive(Debug, Default)]
pub(super) struct Draft<'a> {
    models: HashMap<&'a str, Written<'a>>,
}

/// What the names on the way to a model add.
#[derive(Debug, Clone, Default)]
struct Added {
    defaults: Defaults,
    require: Labels,
}

impl<'a> Draft<'a> {
    /// Adds a name.
    pub(super) fn add(&mut self, name: &'a str, written: Written<'a>) {
        self.models.insert(name, written);
    }

    /// The models for which `name` stands, in the order of trial; at least one.
    ///
    /// # Errors
    /// It stands for itself, or for too many.
    pub(super) fn targets(&self, name: &'a str) -> Result<Vec<Target>, String> {
        let mut found = Vec::new();
        self.collect(name, &Added::default(), &mut Vec::new(), &mut found)?;
        Ok(found)
    }

    fn collect(
        &self,
        name: &'a str,
        outer: &Added,
        path: &mut Vec<&'a str>,
        found: &mut Vec<Target>,
    ) -> Result<(), String> {
        let Some(written) = self.models.get(name) else {
            return push(name, outer, found);
        };
        let added = Added {
            defaults: outer.defaults.or(&written.defaults),
            require: outer.require.or(written.require),
        };
        if written.targets.is_empty() {
            return push(name, &added, found);
        }
        if path.contains(&name) {
            return Err(format!("it stands for itself: {} → {name}", path.join(" → ")));
        }
        path.push(name);
        for target in written.targets {
            if target == name {
                // Among its own targets, a name means the model itself.
                push(name, &added, found)?;
            } else {
                self.collect(target, &added, path, found)?;
            }
        }
        path.pop();
        Ok(())
    }
}

/// Adds a model, if it is not among those that were found.
fn push(model: &str, added: &Added, found: &mut Vec<Target>) -> Result<(), String> {
    if found.iter().any(|known| known.model == model) {
        return Ok(());
    }
    if found.len() >= MAX_TARGETS {
        return Err(format!("it has more than {MAX_TARGETS} models"));
    }
    found.push(Target {
        model: model.to_owned(),
        defaults: added.defaults.clone(),
        require: added.require.clone(),
    });
    Ok(())
}
