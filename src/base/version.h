#pragma once

namespace moerun {

/// The program's version, and `git describe` of the tree that it was built from.
const char* version();
const char* git_revision();

}  // namespace moerun
