#include "model/decoder.h"

#include "model/model.h"

namespace moerun {

namespace {

class Decoder : public Model {
 public:
  using Model::Model;

 private:
  void layer(const Step& step, size_t index, const AddRmsNormArgs& then) override {
    const LayerWeights& weights = weights_of(index);
    if (step.any()) {
      if (config().is_delta(static_cast<int64_t>(index)))
        delta_net_.run(step, weights, state_of(index));
      else
        attention_.run(step, weights, cache_of(index));
    }
    if (weights.sparse)
      experts_.run(step, index, weights, then);
    else
      dense_mlp_.run(step, weights, then);
  }
};

}  // namespace

std::unique_ptr<Model> make_decoder(ModelParts parts) { return std::make_unique<Decoder>(std::move(parts)); }

}  // namespace moerun
