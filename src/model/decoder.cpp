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
    if (step.any()) attention_.run(step, weights, cache_of(index));
    if (weights.sparse)
      experts_.run(step, index, weights, then);
    else
      dense_mlp_.run(step, weights, then);
  }
};

}  // namespace

std::unique_ptr<Model> make_decoder(ModelParts parts) { return std::make_unique<Decoder>(std::move(parts)); }

}  // namespace moerun
