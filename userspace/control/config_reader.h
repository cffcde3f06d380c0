// Reads typed values out of YAML nodes and collects every mistake with its position.
//
// Only for config_parse.cc: the one header that includes yaml-cpp, which is slow to compile.
//
// Thread: any; a Reader belongs to one parse.
#ifndef SLUICE_CONTROL_CONFIG_READER_H_
#define SLUICE_CONTROL_CONFIG_READER_H_

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "control/config.h"

namespace sluice::control {

// A value and where to point when it is wrong: its own place, or its key's when it has none.
struct ConfigValue {
  YAML::Node node;
  YAML::Mark mark;
  std::string key;  // for messages
};

class ConfigReader {
 public:
  using Field = std::pair<std::string_view, std::function<void(const ConfigValue&)>>;
  template <class T>
  using Word = std::pair<std::string_view, T>;

  explicit ConfigReader(std::string_view file) : file_(file) {}

  void Error(const YAML::Mark& mark, std::string message);
  std::vector<ConfigError> TakeErrors();  // sorted by position
  bool ok() const { return errors_.empty(); }

  // Calls the field's function for each key; unknown and repeated keys are errors. An empty value
  // (a section whose lines are all commented out) is an empty map.
  void Map(const ConfigValue& value, std::span<const Field> fields);
  void Map(const ConfigValue& value, std::initializer_list<Field> fields) {
    Map(value, std::span<const Field>(fields.begin(), fields.size()));
  }
  // Calls `item` for each element. False when it is not a list.
  bool List(const ConfigValue& value, const std::function<void(const ConfigValue&)>& item);

  std::optional<std::string> Text(const ConfigValue& value, std::string_view expected);
  std::optional<uint32_t> Number(const ConfigValue& value, uint32_t min, uint32_t max,
                                 std::string_view or_word = {});
  // A number, or `word`, which leaves it unset.
  void NumberOr(const ConfigValue& value, std::string_view word, uint32_t min, uint32_t max,
                std::optional<uint32_t>* out);
  void NumberInto(const ConfigValue& value, uint32_t min, uint32_t max, uint32_t* out);

  template <class T>
  void OneOf(const ConfigValue& value, std::initializer_list<Word<T>> words, T* out) {
    std::string expected;
    for (const auto& word : words) {
      expected += (expected.empty() ? "" : ", ") + std::string(word.first);
    }
    const auto text = Text(value, "one of " + expected);
    if (!text) return;
    std::vector<std::string_view> known;
    for (const auto& word : words) {
      if (*text == word.first) {
        *out = word.second;
        return;
      }
      known.push_back(word.first);
    }
    Error(value.mark, "\"" + value.key + "\" must be one of " + expected + ", not \"" + *text +
                          "\"" + DidYouMean(*text, known));
  }

  // `; did you mean "x"?`, or nothing when no word is near.
  static std::string DidYouMean(std::string_view word, const std::vector<std::string_view>& known);

 private:
  const std::string file_;
  std::vector<ConfigError> errors_;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_CONFIG_READER_H_
