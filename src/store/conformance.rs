//! What every store promises, as tests.
