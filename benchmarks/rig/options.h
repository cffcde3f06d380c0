// The long options of the rig's programs: their names, and where the values go. One that is not
// known, or has no number where there must be one, ends the program with an error.
#ifndef SLUICE_BENCHMARKS_RIG_OPTIONS_H_
#define SLUICE_BENCHMARKS_RIG_OPTIONS_H_

#include <getopt.h>

#include <charconv>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "command_loop.h"

namespace sluice::rig {

struct Option {
  const char* name;  // without the dashes
  std::variant<bool*, int*, uint32_t*, uint64_t*, double*, std::string*> value;  // bool: a flag
};

// What stays as it is when its option is not given. Returns the arguments that are no options.
inline std::vector<std::string> ReadOptions(int argc, char** argv,
                                            std::initializer_list<Option> known) {
  std::vector<option> table;
  for (const Option& o : known) {
    table.push_back({o.name, std::holds_alternative<bool*>(o.value) ? no_argument
                                                                    : required_argument,
                     nullptr, 0});
  }
  table.push_back({});
  int which = 0;
  for (int c; (c = getopt_long(argc, argv, "", table.data(), &which)) != -1;) {
    if (c != 0) Fail("bad option");
    const Option& o = known.begin()[which];
    std::visit(
        [&o](auto* value) {
          using Value = std::remove_pointer_t<decltype(value)>;
          if constexpr (std::is_same_v<Value, bool>) {
            *value = true;
          } else if constexpr (std::is_same_v<Value, std::string>) {
            *value = optarg;
          } else {
            const char* const end = optarg + std::strlen(optarg);
            if (const auto read = std::from_chars(optarg, end, *value);
                read.ec != std::errc() || read.ptr != end) {
              Fail(std::string("--") + o.name + ": " + optarg);
            }
          }
        },
        o.value);
  }
  return {argv + optind, argv + argc};
}

}  // namespace sluice::rig

#endif  // SLUICE_BENCHMARKS_RIG_OPTIONS_H_
