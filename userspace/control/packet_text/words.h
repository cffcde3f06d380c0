// Text as words with their places, for small languages on the command line.
//
// Words are separated by white space; the quotes around "wan0" fall away. Positions count characters
// from 1, as people do.
//
// Thread: any; a value that views the text.
#ifndef SLUICE_CONTROL_PACKET_TEXT_WORDS_H_
#define SLUICE_CONTROL_PACKET_TEXT_WORDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace sluice::control {

class Words {
 public:
  explicit Words(std::string_view text) : text_(text) { Advance(); }

  bool done() const { return word_.empty(); }
  std::string_view word() const { return word_; }  // empty at the end
  size_t position() const { return start_ + 1; }
  // The current word, and on to the next.
  std::string_view Take() {
    const std::string_view word = word_;
    last_ = position();
    Advance();
    return word;
  }
  // Takes the word when it is this one.
  bool Skip(std::string_view word) {
    if (word_ != word) return false;
    Take();
    return true;
  }

  // "character 12: ..." at the current word, or at the one just taken.
  absl::Status Error(std::string_view message) const { return ErrorAt(position(), message); }
  absl::Status ErrorBefore(std::string_view message) const { return ErrorAt(last_, message); }
  static absl::Status ErrorAt(size_t position, std::string_view message);

 private:
  void Advance();

  std::string_view text_;
  std::string_view word_;
  size_t start_ = 0;
  size_t next_ = 0;
  size_t last_ = 1;
};

// Decimal, or hexadecimal after 0x; none when it is neither, or above `most`.
std::optional<uint64_t> ParseNumber(std::string_view text, uint64_t most);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_PACKET_TEXT_WORDS_H_
