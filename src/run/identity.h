#pragma once
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "moerun/io.h"
#include "run/start_up.h"

namespace moerun {

/// What decides the answers of a job: the same in every run that may go on with its results.
Fingerprint fingerprint_of(const CheckedJob& checked);

/// How the output came to be.
Provenance provenance_of(const CheckedJob& checked);

/// SHA-256 (hex) of every tensor's name, type, shape and file, of the files' size, and of some values from
/// each tensor's middle: for `model.verify_weights: sampled`. Weights that differ elsewhere have the same
/// one.
std::string sampled_checksum(const Checkpoint& checkpoint);

/// "cpu", "cuda", "null".
std::string name_of(Job::DeviceKind kind);

}  // namespace moerun
