#include "control/packet_text/words.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/str_cat.h"

namespace sluice::control {

absl::Status Words::ErrorAt(size_t position, std::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat(
      "character ", position, ": ", absl::string_view(message.data(), message.size())));
}

void Words::Advance() {
  constexpr std::string_view kSpace = " \t\n\r\f\v";
  start_ = std::min(text_.find_first_not_of(kSpace, next_), text_.size());
  next_ = std::min(text_.find_first_of(kSpace, start_), text_.size());
  word_ = text_.substr(start_, next_ - start_);
  if (word_.size() > 2 && word_.front() == '"' && word_.back() == '"') {
    word_ = word_.substr(1, word_.size() - 2);
  }
}

std::optional<uint64_t> ParseNumber(std::string_view text, uint64_t most) {
  const bool hex = text.starts_with("0x");
  if (hex) text.remove_prefix(2);
  uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number, hex ? 16 : 10);
  if (text.empty() || error != std::errc() || stop != end || number > most) return {};
  return number;
}

}  // namespace sluice::control
