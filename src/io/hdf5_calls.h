#pragma once
#include <hdf5.h>

#include <string>

#include "io/hdf5.h"

namespace moerun::hdf5 {

// How this folder calls the HDF5 library: what fails becomes an Error with the library's own reason, and the
// system's where a disk is behind it (ExitCode::stopped).

/// Before any other call. Throws Error.
void silence();
/// Throws Error of what failed last.
[[noreturn]] void fail(const std::string& what);
void check(herr_t status, const std::string& what);
Handle checked(hid_t id, Handle::Close close, const std::string& what);
void close_handle(Handle& handle, const std::string& name);
/// An attribute of one value: HDF5 writes as many as it has to where one is to be read.
Handle open_single_attribute(hid_t object, const std::string& name, const std::string& what);
/// Of variable length.
Handle string_type(H5T_cset_t charset);

}  // namespace moerun::hdf5
