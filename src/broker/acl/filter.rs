//! Which bindings a request to describe or delete means.

use super::{Binding, Operation, Pattern, PatternType, Permission, ResourceType, WILDCARD};

/// Finds bindings; what is `None` matches everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub resource: Option<ResourceType>,
    pub pattern: PatternFilter,
    pub name: Option<String>,
    pub principal: Option<String>,
    pub host: Option<String>,
    pub operation: Option<Operation>,
    pub permission: Option<Permission>,
}

/// How a filter's name is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatternFilter {
    /// Patterns of either type with exactly this name.
    Any,
    /// Every pattern that is about a resource of this name: literal, `*`, and prefixes of it.
    Match,
    /// Patterns of this type with exactly this name.
    Only(PatternType),
}

/// Kafka's number for "any" wherever a filter has a number.
const ANY: i8 = 1;
const MATCH: i8 = 2;

impl PatternFilter {
    /// The filter with Kafka's number; none for what Kafka does not know either.
    pub fn from_number(number: i8) -> Option<Self> {
        match number {
            ANY => Some(Self::Any),
            MATCH => Some(Self::Match),
            other => PatternType::from_number(other).map(Self::Only),
        }
    }
}

impl Filter {
    /// What a number in a filter means: everything, or one thing. None for what is unknown.
    pub fn word<T>(number: i8, from_number: impl Fn(i8) -> Option<T>) -> Option<Option<T>> {
        if number == ANY { Some(None) } else { from_number(number).map(Some) }
    }

    /// Whether the filter finds this binding.
    pub fn matches(&self, binding: &Binding) -> bool {
        let entry = &binding.entry;
        self.finds(&binding.pattern)
            && self.principal.as_ref().is_none_or(|principal| *principal == entry.principal)
            && self.host.as_ref().is_none_or(|host| *host == entry.host)
            && self.operation.is_none_or(|operation| operation == entry.operation)
            && self.permission.is_none_or(|permission| permission == entry.permission)
    }

    fn finds(&self, pattern: &Pattern) -> bool {
        if self.resource.is_some_and(|resource| resource != pattern.resource) {
            return false;
        }
        let of_type = match self.pattern {
            PatternFilter::Only(only) => only == pattern.pattern,
            PatternFilter::Any | PatternFilter::Match => true,
        };
        let Some(name) = &self.name else { return of_type };
        match (self.pattern, pattern.pattern) {
            (PatternFilter::Match, PatternType::Literal) => *name == pattern.name || pattern.name == WILDCARD,
            (PatternFilter::Match, PatternType::Prefixed) => name.starts_with(&pattern.name),
            _ => of_type && *name == pattern.name,
        }
    }
}
