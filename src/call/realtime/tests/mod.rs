//! Stories and properties of calls that a model conducts.
