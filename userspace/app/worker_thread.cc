#include "app/worker_thread.h"

#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>

#include "app/clock.h"
#include "app/log.h"
#include "app/run.h"

namespace sluice::app {
namespace {

// An upper bound on sleep, so that a live worker is seen to turn (the watchdog counts its loops).
constexpr Nanos kLongestSleep = Millis(500);
// What a device has not taken is offered to it again soon; poll() does not say when it would.
constexpr Nanos kRetrySleep = Millis(1);
// While frames wait for completion, which copy mode does not report by poll() either. They are not
// urgent unless the worker runs out of frames. Longer than any kernel's tick: the clock's interrupt
// is set anew for a sleep that would end before the next tick, and again when a packet ends it, which
// is dear in a virtual machine, and under load a worker sleeps between any two bursts.
constexpr Nanos kCompletionSleep = Millis(20);
constexpr uint32_t kFewFrames = 256;

class CallCommand final : public dataplane::Command {
 public:
  CallCommand(WorkerThread::Worker& worker, std::function<void(WorkerThread::Worker&)> code)
      : worker_(worker), code_(std::move(code)) {}
  void Run() override { code_(worker_); }

 private:
  WorkerThread::Worker& worker_;
  std::function<void(WorkerThread::Worker&)> code_;
};

}  // namespace

WorkerThread::EventFd::EventFd() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}
WorkerThread::EventFd::~EventFd() { close(fd_); }
void WorkerThread::EventFd::Wake() {
  // A full counter means that it is awake already.
  [[maybe_unused]] const int ignored = eventfd_write(fd_, 1);
}
void WorkerThread::EventFd::Drain() {
  eventfd_t value;
  [[maybe_unused]] const int ignored = eventfd_read(fd_, &value);
}

WorkerThread::WorkerThread(WorkerId id, std::optional<uint32_t> cpu,
                           const packet::FrameArena& arena, const dataplane::Shared& shared,
                           const dataplane::PipelineConfig& config)
    : cpu_(cpu),
      pool_(arena),
      worker_(std::make_unique<Worker>(id, shared, config, pool_)),
      mailbox_(worker_->mailbox()),
      epochs_(shared.epochs) {
  mailbox_.set_waker(&wake_);
  poll_set_.reserve(1 + kMaxInterfaces * 4);
  PortsChanged();
}

WorkerThread::~WorkerThread() {
  Stop();
  mailbox_.set_waker(nullptr);
}

void WorkerThread::Start() { thread_ = std::thread([this] { Run(); }); }

void WorkerThread::Stop() {
  if (!thread_.joinable()) return;
  stop_.store(true, std::memory_order_relaxed);
  wake_.Wake();
  thread_.join();
}

void WorkerThread::Call(std::function<void(Worker&)> code) {
  if (!thread_.joinable()) return code(*worker_);
  CallCommand command(*worker_, std::move(code));
  const Nanos deadline = MonotonicNow() + kCallTimeout;
  const auto give_up_when_late = [&] {
    if (MonotonicNow() <= deadline) return;
    LogError("worker {} does not answer; ending, so that the kernel forwards",
             worker_->id().value);
    _exit(kExitFailed);
  };
  while (!mailbox_.Post(&command)) {
    give_up_when_late();
    usleep(100);
  }
  mailbox_.Ring();
  for (unsigned looks = 0; !command.done(); ++looks) {
    give_up_when_late();
    usleep(looks < 20 ? 20 : 500);  // a sleeping or busy worker needs some tens of microseconds
  }
}

void WorkerThread::Pin() {
  char name[16];
  std::snprintf(name, sizeof name, "sluice-w%u", worker_->id().value);
  pthread_setname_np(pthread_self(), name);
  if (!cpu_) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(*cpu_, &set);
  const int error = pthread_setaffinity_np(pthread_self(), sizeof set, &set);
  if (error != 0) {
    LogWarning("worker {} cannot be pinned to CPU {}: {}; it runs where the scheduler puts it",
               worker_->id().value, *cpu_, std::generic_category().message(error));
  }
}

void WorkerThread::Run() {
  Pin();
  epochs_.Online(worker_->id());
  while (!stop_.load(std::memory_order_relaxed)) {
    const Nanos start = MonotonicNow();
    if (worker_->Tick(start) > 0) {
      worker_->counters().busy_ns.Add(static_cast<uint64_t>((MonotonicNow() - start).count()));
    } else {
      Sleep(start);
    }
  }
  epochs_.Offline(worker_->id());
}

void WorkerThread::Sleep(Nanos now) {
  Nanos timeout = std::min(kLongestSleep, worker_->NextDeadline() - now);
  const Nanos completion = pool_.size() < kFewFrames ? kRetrySleep : kCompletionSleep;
  for (const ServedPort* const port : worker_->ports()) {
    const io::af_xdp::AfXdpPort& xdp = port->af_xdp();
    if (!xdp.HasPendingTx()) continue;
    timeout = std::min(timeout, xdp.HasUnsentTx() ? kRetrySleep : completion);
  }
  if (worker_->BeforeSleep()) {
    sleeping_.store(true, std::memory_order_relaxed);
    timeout = std::max(timeout, Nanos(0));
    const timespec wait{.tv_sec = timeout.count() / Seconds(1).count(),
                        .tv_nsec = timeout.count() % Seconds(1).count()};
    const int ready = ppoll(poll_set_.data(), poll_set_.size(), &wait, nullptr);
    sleeping_.store(false, std::memory_order_relaxed);
    worker_->counters().sleeps.Add();
    if (ready > 0) {
      if (poll_set_[0].revents != 0) wake_.Drain();
      for (size_t i = 1; i < poll_set_.size(); ++i) {
        if ((poll_set_[i].revents & (POLLERR | POLLHUP | POLLNVAL)) == 0) continue;
        io::af_xdp::AfXdpPort& port = worker_->ports()[i - 1]->af_xdp();
        port.CheckAlive();
        // A dead socket would end every sleep at once, until the control thread closes it.
        if (port.dead()) poll_set_[i].fd = -1;
      }
    }
  }
  worker_->AfterSleep();
}

void WorkerThread::PortsChanged() {
  poll_set_.clear();
  poll_set_.push_back({.fd = wake_.fd(), .events = POLLIN, .revents = 0});
  for (const ServedPort* const port : worker_->ports()) {
    poll_set_.push_back({.fd = port->af_xdp().fd(), .events = POLLIN, .revents = 0});
  }
}

}  // namespace sluice::app
