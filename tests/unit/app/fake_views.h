// A view source with one of everything, for the tests of the control API and the command line.
#ifndef SLUICE_TESTS_UNIT_APP_FAKE_VIEWS_H_
#define SLUICE_TESTS_UNIT_APP_FAKE_VIEWS_H_

#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <vector>

#include "telemetry/views.h"

namespace sluice::app {

class FakeViews : public telemetry::ViewSource {
 public:
  std::atomic<bool> ready{true};
  std::atomic<int> ready_after{0};  // so many questions are answered with no
  telemetry::RouteFilter last_filter;

  telemetry::ReadyView Ready() override {
    if (ready_after > 0) {
      --ready_after;
      return {false, "starting"};
    }
    return {ready, ready ? "" : "no interface is up"};
  }
  telemetry::StatusView Status() override {
    telemetry::StatusView view;
    view.version = "1.2.3";
    view.packets.received = 5;
    view.packets.forwarded = 5;
    return view;
  }
  std::vector<telemetry::InterfaceView> Interfaces() override {
    telemetry::InterfaceView view;
    view.name = "lan0";
    return {view};
  }
  telemetry::RoutesView Routes(const telemetry::RouteFilter& filter) override {
    last_filter = filter;
    telemetry::RoutesView view;
    view.total4 = 1;
    view.routes = {{"10.0.0.0/8", "unicast", {}, 0, true, ""}};
    return view;
  }
  std::vector<telemetry::NeighborView> Neighbors() override {
    return {{"10.0.0.2", "lan0", "", "stale", 0, 1, 0}};
  }
  std::vector<telemetry::WorkerView> Workers() override { return {{}}; }
  std::vector<telemetry::DropView> Drops() override {
    return {{"lan0", "no_route", "no route", 3}, {"lan0", "checksum", "wrong", 0}};
  }
};

// A directory of the test's own, gone afterwards.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    char name[] = "/tmp/sluice-test-XXXXXX";
    path_ = mkdtemp(name);
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace sluice::app

#endif  // SLUICE_TESTS_UNIT_APP_FAKE_VIEWS_H_
