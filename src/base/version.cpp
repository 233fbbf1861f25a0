#include "base/version.h"

namespace moerun {

const char* version() { return MOERUN_VERSION; }
const char* git_revision() { return MOERUN_GIT; }

}  // namespace moerun
