#include "app/service_control.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "app/clock.h"
#include "app/log.h"
#include "app/service_program.h"
#include "base/rng.h"

namespace sluice::app {

namespace {

transport::TransportConfig StackConfig(const control::LimitsConfig& limits, uint32_t frames,
                                       Rng& rng) {
  transport::TransportConfig config;
  transport::TcpLimits& tcp = config.tcp.limits;
  tcp.connections = limits.connections;
  tcp.listeners = static_cast<uint32_t>(tables::kMaxServices * tables::kMaxListens);
  tcp.time_wait = limits.connections / 2;
  tcp.half_open = std::max(limits.connections / 4, 1u);
  tcp.orphans = limits.connections / 4;
  tcp.send_frames = frames / 4;
  tcp.receive_frames = frames / 4;
  config.tcp.first_port = config.udp.first_port = limits.socket_ports.first;
  config.tcp.last_port = config.udp.last_port = limits.socket_ports.last;
  // A session may have a socket on either side.
  config.udp.sockets = 2 * limits.udp_sessions + tcp.listeners;
  config.udp.receive_frames = frames / 8;
  config.key = {rng.Next(), rng.Next()};
  config.start = MonotonicNow();
  return config;
}

services::ServiceLimits LimitsOf(const control::LimitsConfig& limits, uint32_t workers) {
  services::ServiceLimits result;
  result.workers = workers;
  result.relays = std::max(limits.connections / 2, 1u);
  result.udp_sessions = limits.udp_sessions;
  result.endpoint_connections = std::max(limits.connections / 4, 16u);
  return result;
}

}  // namespace

ServiceControl::ServiceControl(const control::LimitsConfig& limits, Workers workers,
                               uint32_t frames, uint64_t seed)
    : limits_(limits),
      workers_(workers),
      frames_(frames),
      seed_(seed),
      fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

ServiceControl::~ServiceControl() { close(fd_); }

void ServiceControl::Install() {
  if (const absl::Status reserved = reserved_.Reserve(limits_.socket_ports); !reserved.ok()) {
    LogWarning("limits.socket_ports cannot be reserved, so the kernel's own connections may use "
               "them too: {}", std::string(reserved.message()));
  }
  const auto count = static_cast<uint32_t>(workers_.size());
  for (const auto& thread : workers_) {
    Rng rng(seed_ + 77'777 * (thread->worker().id().value + 1));
    auto stack = std::make_unique<transport::Transport>(
        StackConfig(limits_, frames_, rng), thread->pool(), thread->worker().pipeline().sockets());
    auto program = std::make_unique<Program>(*stack, LimitsOf(limits_, count), rng.Next(), fd_);
    sets_.push_back({thread.get(), stack.get(), program.get()});
    thread->Call([&](WorkerThread::Worker& worker) {
      worker.pipeline().sockets().Install(std::move(stack), std::move(program));
    });
  }
}

void ServiceControl::Apply(const tables::ServicesConfig& config) {
  if (config.services.empty() && !active()) return;
  if (!active()) Install();
  tables::ServicesConfig assigned = config;
  if (!slots_.Assign(assigned)) {
    LogWarning("services: more backends than are counted one by one; the last ones are not");
  }
  const auto shared = std::make_shared<const tables::ServicesConfig>(std::move(assigned));
  for (const Of& of : sets_) {
    of.thread->Call([&](WorkerThread::Worker& worker) {
      of.program->set.Apply(shared, worker.now());
    });
  }
  WarnOfListens();
}

// An address that cannot be listened on is not tried again: someone has to know.
void ServiceControl::WarnOfListens() const {
  for (const telemetry::ServiceView& service : Services()) {
    if (service.state == "partly") {
      LogWarning("service {}: not all of its addresses can be listened on", service.name);
    }
  }
}

void ServiceControl::AnswerPages(const std::function<std::string()>& render) {
  eventfd_t count;
  if (eventfd_read(fd_, &count) != 0) return;
  std::shared_ptr<const std::string> page;
  for (const Of& of : sets_) {
    uint64_t token;
    while (of.program->pages.TryPop(token)) {
      if (page == nullptr) page = std::make_shared<const std::string>(render());
      of.thread->Call([&](WorkerThread::Worker& worker) {
        of.program->set.OnPage(token, page, worker.now());
      });
    }
  }
  // Kept until no worker has it, so that a worker frees none.
  if (page != nullptr) pages_.push_back(std::move(page));
  std::erase_if(pages_, [](const auto& p) { return p.use_count() == 1; });
}

bool ServiceControl::Drained() {
  bool all = true;
  for (const Of& of : sets_) {
    of.thread->Call([&](WorkerThread::Worker&) { all = all && of.program->set.Drained(); });
  }
  return all;
}

}  // namespace sluice::app
