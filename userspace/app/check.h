// `sluice check`: whether `sluice run` would take a configuration, and, as root, the rules that it loads.
//
// Thread: main.
#ifndef SLUICE_APP_CHECK_H_
#define SLUICE_APP_CHECK_H_

#include <iosfwd>
#include <string>

namespace sluice::app {

// Exit code (run.h).
int Check(const std::string& path, std::ostream& out, std::ostream& err);

}  // namespace sluice::app

#endif  // SLUICE_APP_CHECK_H_
