#include "control/config_reader.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <tuple>

namespace sluice::control {
namespace {

std::string KindOf(const YAML::Node& node) {
  switch (node.Type()) {
    case YAML::NodeType::Map:
      return "a map";
    case YAML::NodeType::Sequence:
      return "a list";
    case YAML::NodeType::Scalar:
      return "\"" + node.Scalar() + "\"";
    case YAML::NodeType::Null:
    case YAML::NodeType::Undefined:
      break;
  }
  return "nothing";
}

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

// A value without a place of its own (nothing after the colon) is shown where `fallback` is.
ConfigValue ValueOf(const YAML::Node& node, const YAML::Mark& fallback, std::string key) {
  const bool has_place = node.IsDefined() && !node.IsNull() && !node.Mark().is_null();
  return ConfigValue{node, has_place ? node.Mark() : fallback, std::move(key)};
}

}  // namespace

void ConfigReader::Error(const YAML::Mark& mark, std::string message) {
  const auto from_one = [](int n) { return n < 0 ? 1u : static_cast<uint32_t>(n) + 1; };
  errors_.push_back({file_, from_one(mark.line), from_one(mark.column), std::move(message)});
}

std::vector<ConfigError> ConfigReader::TakeErrors() {
  std::stable_sort(errors_.begin(), errors_.end(), [](const ConfigError& a, const ConfigError& b) {
    return std::tie(a.line, a.column) < std::tie(b.line, b.column);
  });
  return std::move(errors_);
}

std::string ConfigReader::DidYouMean(std::string_view word,
                                     const std::vector<std::string_view>& known) {
  if (word.size() > 64) return {};
  std::string_view best;
  size_t best_distance = std::min<size_t>(3, word.size() / 2 + 1);  // exclusive
  for (const std::string_view candidate : known) {
    const size_t distance = EditDistance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best.empty() ? std::string() : "; did you mean \"" + std::string(best) + "\"?";
}

void ConfigReader::Map(const ConfigValue& value, std::span<const Field> fields) {
  if (value.node.IsNull()) return;
  if (!value.node.IsMap()) {
    Error(value.mark,
          (value.key.empty() ? std::string("the configuration") : "\"" + value.key + "\"") +
              " must be a map of keys and values, not " + KindOf(value.node));
    return;
  }
  std::map<std::string, int> seen;  // key -> line
  for (const auto& entry : value.node) {
    const YAML::Mark mark = entry.first.Mark();
    if (!entry.first.IsScalar()) {
      Error(mark, "a key must be a word, not " + KindOf(entry.first));
      continue;
    }
    const std::string& key = entry.first.Scalar();
    const auto [previous, is_new] = seen.emplace(key, mark.line + 1);
    if (!is_new) {
      Error(mark, "key \"" + key + "\" is given twice, first on line " +
                      std::to_string(previous->second));
      continue;
    }
    const auto field =
        std::find_if(fields.begin(), fields.end(), [&](const Field& f) { return f.first == key; });
    if (field != fields.end()) {
      field->second(ValueOf(entry.second, mark, key));
      continue;
    }
    std::vector<std::string_view> known;
    for (const Field& f : fields) known.push_back(f.first);
    Error(mark, "unknown key \"" + key + "\"" +
                    (value.key.empty() ? "" : " in \"" + value.key + "\"") +
                    DidYouMean(key, known));
  }
}

bool ConfigReader::List(const ConfigValue& value,
                        const std::function<void(const ConfigValue&)>& item) {
  if (!value.node.IsSequence()) {
    Error(value.mark, "\"" + value.key + "\" must be a list, not " + KindOf(value.node));
    return false;
  }
  for (const auto& node : value.node) item(ValueOf(node, value.mark, value.key));
  return true;
}

std::optional<std::string> ConfigReader::Text(const ConfigValue& value, std::string_view expected) {
  if (value.node.IsScalar() && !value.node.Scalar().empty()) return value.node.Scalar();
  Error(value.mark,
        "\"" + value.key + "\" must be " + std::string(expected) + ", not " + KindOf(value.node));
  return {};
}

std::optional<uint32_t> ConfigReader::Number(const ConfigValue& value, uint32_t min, uint32_t max,
                                             std::string_view or_word) {
  const std::string expected = (or_word.empty() ? std::string() : std::string(or_word) + " or ") +
                               "a whole number from " + std::to_string(min) + " to " +
                               std::to_string(max);
  const auto text = Text(value, expected);
  if (!text) return {};
  uint64_t number = 0;
  const char* const end = text->data() + text->size();
  const auto [stop, error] = std::from_chars(text->data(), end, number);
  if (error != std::errc() || stop != end || number < min || number > max) {
    Error(value.mark, "\"" + value.key + "\" must be " + expected + ", not \"" + *text + "\"");
    return {};
  }
  return static_cast<uint32_t>(number);
}

void ConfigReader::NumberOr(const ConfigValue& value, std::string_view word, uint32_t min,
                            uint32_t max, std::optional<uint32_t>* out) {
  if (value.node.IsScalar() && value.node.Scalar() == word) {
    out->reset();
  } else if (const auto number = Number(value, min, max, word)) {
    *out = number;
  }
}

void ConfigReader::NumberInto(const ConfigValue& value, uint32_t min, uint32_t max, uint32_t* out) {
  if (const auto number = Number(value, min, max)) *out = *number;
}

}  // namespace sluice::control
