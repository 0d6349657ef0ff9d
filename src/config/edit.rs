//! Adding and changing agents and reviewers in the file, keeping the operator's comments.
