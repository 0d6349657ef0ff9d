//! Rules that cannot be what their author meant.
