#include "app/task_queue.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace sluice::app {

TaskQueue::TaskQueue() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

TaskQueue::~TaskQueue() {
  Close();
  close(fd_);
}

bool TaskQueue::Run(const std::function<void()>& code) {
  Task task{&code};
  std::unique_lock lock(mutex_);
  if (closed_) return false;
  waiting_.push_back(&task);
  eventfd_write(fd_, 1);
  finished_.wait(lock, [&] { return task.done || (closed_ && !task.taken); });
  return task.done;
}

void TaskQueue::RunAll() {
  eventfd_t value;
  eventfd_read(fd_, &value);
  std::unique_lock lock(mutex_);
  while (!waiting_.empty()) {
    Task* const task = waiting_.front();
    waiting_.pop_front();
    task->taken = true;
    // The waiter cannot leave before `done`: its task stays valid without the lock.
    lock.unlock();
    (*task->code)();
    lock.lock();
    task->done = true;
  }
  finished_.notify_all();
}

void TaskQueue::Close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  waiting_.clear();
  finished_.notify_all();
}

}  // namespace sluice::app
