#include "io/hdf5_calls.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <string_view>
#include <system_error>

#include "moerun/error.h"

namespace moerun::hdf5 {
namespace {

/// At exit HDF5 would close what is open, and crash where that cannot be written: owners close, or leave it.
/// It listens only before any other call to it, whoever makes that one.
const bool kNothingAtExit = H5dont_atexit() >= 0;

/// The innermost reason of the last failure: the most specific one.
std::string reason() {
  std::string text;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned n, const H5E_error2_t* error, void* out) -> herr_t {
        if (n == 0) *static_cast<std::string*>(out) = error->desc ? error->desc : "";
        return 0;
      },
      &text);
  return text.empty() ? "no reason given" : text;
}

/// The system's own error in HDF5's reason ("..., errno = 28, error message = ..."); 0: none.
int os_error_in(const std::string& why) {
  constexpr std::string_view kErrno = "errno = ";
  const size_t begin = why.find(kErrno);
  return begin == std::string::npos ? 0 : std::atoi(why.c_str() + begin + kErrno.size());
}

std::string newer_hint() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format(
      " (it was written by a newer HDF5 than the {}.{}.{} that reads it here, or is damaged: write it with "
      "h5py's libver=('earliest', 'v110'), or repack it there: h5repack --low=0 --high=2 OLD.h5 NEW.h5)",
      major, minor, release);
}

}  // namespace

/// HDF5 prints its error stack to stderr unless told not to; the messages here carry what it says.
void silence() {
  if (!kNothingAtExit) throw Error("HDF5 was started before it could be told to do nothing at exit");
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

void fail(const std::string& what) {
  const std::string why = reason();
  const int os_error = os_error_in(why);
  // "bad version number for layout message", "bad superblock version number"
  const bool newer = why.find("version number") != std::string::npos;
  if (os_error == 0) throw Error(fmt::format("{}: HDF5 says: {}{}", what, why, newer ? newer_hint() : ""));
  const bool disk = os_error == ENOSPC || os_error == EDQUOT || os_error == EFBIG || os_error == EIO ||
                    os_error == EROFS || os_error == ESTALE || os_error == EINTR;
  throw Error(fmt::format("{}: {}", what, std::generic_category().message(os_error)),
              disk ? ExitCode::stopped : ExitCode::fault);
}

Handle checked(hid_t id, Handle::Close close, const std::string& what) {
  if (id < 0) fail(what);
  return {id, close};
}

void check(herr_t status, const std::string& what) {
  if (status < 0) fail(what);
}

void close_handle(Handle& handle, const std::string& name) {
  if (!handle.reset()) fail(fmt::format("{} cannot be written and closed", name));
}

Handle string_type(H5T_cset_t charset) {
  const std::string what = "HDF5's type of strings cannot be made";
  Handle type = checked(H5Tcopy(H5T_C_S1), H5Tclose, what);
  check(H5Tset_size(type.get(), H5T_VARIABLE), what);
  check(H5Tset_cset(type.get(), charset), what);
  return type;
}

Handle open_single_attribute(hid_t object, const std::string& name, const std::string& what) {
  Handle attribute = checked(H5Aopen(object, name.c_str(), H5P_DEFAULT), H5Aclose, what);
  const Handle space = checked(H5Aget_space(attribute.get()), H5Sclose, what);
  if (H5Sget_simple_extent_npoints(space.get()) != 1) throw Error(what + ": it is not one value");
  return attribute;
}

}  // namespace moerun::hdf5
