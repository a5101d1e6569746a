import { useCallback, useEffect, useRef, useState, type SubmitEvent } from "react";
import { createTask, deleteTask, Failure, listTasks, updateTask, type Task } from "./client";
import { DeleteDialog } from "./delete-dialog";
import type { Permissions } from "./permissions";
import { TaskItem } from "./task-item";

type Props = {
  permissions: Permissions;
  /** Called for failures that replace the whole dashboard. */
  onFatal: (failure: Failure) => void;
};

type Problem = { message: string; action?: "Try again" | "Reload the list" };

/** The task list, with the controls that the user's permissions allow. */
export function Tasks({ permissions, onFatal }: Props) {
  const [tasks, setTasks] = useState<Task[]>();
  const [next, setNext] = useState<string>();
  const [problem, setProblem] = useState<Problem>();
  // Cleared before each change, so that a screen reader announces the same text again.
  const [announcement, setAnnouncement] = useState("");
  const [taskToDelete, setTaskToDelete] = useState<Task>();
  const [loading, setLoading] = useState(false);
  const heading = useRef<HTMLHeadingElement>(null);
  const title = permissions["View All in Org"] ? "All Tasks in My Organization" : "My Tasks";

  /** The problem to show for a failure. Failures that replace the dashboard go to `onFatal`. */
  const toProblem = useCallback(
    (error: unknown): Problem | undefined => {
      const failure = error as Failure;
      if (failure.kind === "signed-out" || failure.kind === "not-allowed") {
        onFatal(failure);
        return undefined;
      }
      return failure.kind === "unavailable"
        ? { message: failure.message, action: "Try again" }
        : { message: failure.message };
    },
    [onFatal],
  );

  /** As `toProblem`, for a change. During an outage it is unknown whether the change was saved. */
  const toChangeProblem = useCallback(
    (error: unknown): Problem | undefined => {
      const found = toProblem(error);
      return found?.action
        ? { message: `${found.message} The change may not have been saved.`, action: "Reload the list" }
        : found;
    },
    [toProblem],
  );

  const load = useCallback(
    async (query?: string) => {
      setLoading(true);
      try {
        const page = await listTasks(query);
        setTasks((shown) => merge(query ? shown : [], page.tasks));
        setNext(page.next);
        setProblem(undefined);
        return page.tasks.length;
      } catch (error) {
        setProblem(toProblem(error));
        return undefined;
      } finally {
        setLoading(false);
      }
    },
    [toProblem],
  );

  useEffect(() => void load(), [load]);

  const loadMore = async () => {
    const count = await load(next);
    if (count !== undefined) {
      setAnnouncement(`${count} more tasks`);
      // The "Show more" button disappears on the last page.
      heading.current?.focus({ preventScroll: true });
    }
  };

  const add = async (newTitle: string) => {
    setAnnouncement("");
    try {
      const task = await createTask({ title: newTitle });
      setTasks((shown) => merge(shown, [task]));
      setAnnouncement("Task added");
      setProblem(undefined);
      return undefined;
    } catch (error) {
      return toChangeProblem(error);
    }
  };

  const complete = async (task: Task, completed: boolean) => {
    setAnnouncement("");
    setTasks((shown) => merge(shown, [{ ...task, completed }]));
    try {
      const changed = await updateTask(task.id, { completed });
      setTasks((shown) => merge(shown, [changed]));
      setAnnouncement(completed ? "Task completed" : "Task reopened");
      setProblem(undefined);
    } catch (error) {
      setTasks((shown) => merge(shown, [task]));
      setProblem(toChangeProblem(error));
    }
  };

  const rename = async (task: Task, newTitle: string) => {
    setAnnouncement("");
    try {
      const changed = await updateTask(task.id, { title: newTitle });
      setTasks((shown) => merge(shown, [changed]));
      setAnnouncement("Task renamed");
      setProblem(undefined);
      return undefined;
    } catch (error) {
      return toChangeProblem(error)?.message ?? "";
    }
  };

  const remove = async (task: Task) => {
    setAnnouncement("");
    try {
      await deleteTask(task.id);
      setTasks((shown) => shown?.filter(({ id }) => id !== task.id));
      setAnnouncement("Task deleted");
      setProblem(undefined);
      return true;
    } catch (error) {
      setProblem(toChangeProblem(error));
      return false;
    }
  };

  const closeDialog = (deleted: boolean) => {
    setTaskToDelete(undefined);
    if (deleted) {
      // The focused button was removed with the task.
      heading.current?.focus();
    }
  };

  return (
    <section className="card" aria-labelledby="tasks">
      <h2 id="tasks" ref={heading} tabIndex={-1}>
        {title}
      </h2>
      {permissions.Create && <NewTaskForm onAdd={add} onReload={() => void load()} />}
      <div role="alert">{problem && <ProblemText problem={problem} onReload={() => void load()} />}</div>
      <p role="status" className="status">
        {loading ? "Loading tasks…" : announcement}
      </p>
      {tasks?.length === 0 && <p>{permissions.Create ? "No tasks yet. Add the first one above." : "No tasks yet."}</p>}
      {tasks && tasks.length > 0 && (
        <ul className="tasks" aria-labelledby="tasks">
          {tasks.map((task) => (
            <TaskItem
              key={task.id}
              task={task}
              permissions={permissions}
              onComplete={(completed) => complete(task, completed)}
              onRename={(newTitle) => rename(task, newTitle)}
              onDelete={() => setTaskToDelete(task)}
            />
          ))}
        </ul>
      )}
      {next && (
        <button type="button" className="secondary" aria-disabled={loading} onClick={() => loading || void loadMore()}>
          Show more
        </button>
      )}
      {taskToDelete && (
        <DeleteDialog task={taskToDelete} onDelete={() => remove(taskToDelete)} onClose={closeDialog} />
      )}
    </section>
  );
}

function ProblemText({ problem, onReload }: { problem: Problem; onReload: () => void }) {
  return (
    <div className="problem">
      <p>{problem.message}</p>
      {problem.action && (
        <button type="button" className="secondary" onClick={onReload}>
          {problem.action}
        </button>
      )}
    </div>
  );
}

type NewTaskFormProps = {
  /** Resolves to a problem, or to undefined on success. */
  onAdd: (title: string) => Promise<Problem | undefined>;
  onReload: () => void;
};

/** Does not limit the title's length: the service counts characters, browsers count UTF-16 code units. */
function NewTaskForm({ onAdd, onReload }: NewTaskFormProps) {
  const [title, setTitle] = useState("");
  const [problem, setProblem] = useState<Problem>();
  const [adding, setAdding] = useState(false);

  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (adding) {
      return;
    }
    setAdding(true);
    const newProblem = await onAdd(title);
    setProblem(newProblem);
    if (!newProblem) {
      setTitle("");
    }
    setAdding(false);
  };

  const reload = () => {
    setProblem(undefined);
    onReload();
  };

  return (
    <form onSubmit={(event) => void submit(event)} noValidate>
      <label htmlFor="new-task">New task</label>
      <div className="row">
        <input
          id="new-task"
          autoComplete="off"
          dir="auto"
          value={title}
          aria-invalid={problem !== undefined}
          aria-describedby="new-task-problem"
          onChange={(event) => setTitle(event.target.value)}
        />
        <button type="submit" aria-disabled={adding}>
          Add task
        </button>
      </div>
      <div role="alert" id="new-task-problem">
        {problem && <ProblemText problem={problem} onReload={reload} />}
      </div>
    </form>
  );
}

/** Merges both lists by id, oldest first. A task in `updates` replaces the one in `shown`. */
function merge(shown: Task[] = [], updates: Task[]): Task[] {
  const byId = new Map(shown.map((task) => [task.id, task]));
  for (const task of updates) {
    byId.set(task.id, task);
  }
  return [...byId.values()].sort((one, other) => one.id - other.id);
}
