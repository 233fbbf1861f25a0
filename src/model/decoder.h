#pragma once
#include <memory>

#include "model/step.h"

namespace moerun {

class Model;

/// A decoder whose layers are attention or a gated delta net, then experts or where a layer is not sparse a
/// dense MLP, each normed before (`input_layernorm`, `post_attention_layernorm`) and added to the residual:
/// what most families are.
std::unique_ptr<Model> make_decoder(ModelParts parts);

}  // namespace moerun
