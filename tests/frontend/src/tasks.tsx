import { useCallback, useEffect, useRef, useState, type SubmitEvent } from "react";
import { create, Failure, remove, tasks as fetchTasks, update, type Task } from "./client";
import { DeleteDialog } from "./delete-dialog";
import type { Permissions } from "./permissions";
import { TaskItem } from "./task-item";

type Props = {
  may: Permissions;
  /** For failures that concern more than the list. */
  onFatal: (failure: Failure) => void;
};

type Problem = { message: string; action?: "Try again" | "Reload the list" };

/** The list of tasks, and what the person's permissions let them do with it. */
export function Tasks({ may, onFatal }: Props) {
  const [tasks, setTasks] = useState<Task[]>();
  const [next, setNext] = useState<string>();
  const [problem, setProblem] = useState<Problem>();
  // Emptied by each change, so that a screen reader says the same words a second time.
  const [said, setSaid] = useState("");
  const [doomed, setDoomed] = useState<Task>();
  const [reading, setReading] = useState(false);
  const heading = useRef<HTMLHeadingElement>(null);
  const title = may["View All in Org"] ? "All Tasks in My Organization" : "My Tasks";

  /** What to show for a failure, unless it ends the session. */
  const explain = useCallback(
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

  /** For a change: of one that met an outage nobody knows whether it was made. */
  const explainChange = useCallback(
    (error: unknown): Problem | undefined => {
      const found = explain(error);
      return found?.action
        ? { message: `${found.message} The change may not have been saved.`, action: "Reload the list" }
        : found;
    },
    [explain],
  );

  const read = useCallback(
    async (query?: string) => {
      setReading(true);
      try {
        const page = await fetchTasks(query);
        setTasks((shown) => merge(query ? shown : [], page.tasks));
        setNext(page.next);
        setProblem(undefined);
        return page.tasks.length;
      } catch (error) {
        setProblem(explain(error));
        return undefined;
      } finally {
        setReading(false);
      }
    },
    [explain],
  );

  useEffect(() => void read(), [read]);

  const readMore = async () => {
    const count = await read(next);
    if (count !== undefined) {
      setSaid(`${count} more tasks`);
      // The button may be gone.
      heading.current?.focus({ preventScroll: true });
    }
  };

  const add = async (newTitle: string) => {
    setSaid("");
    try {
      const task = await create({ title: newTitle });
      setTasks((shown) => merge(shown, [task]));
      setSaid("Task added");
      setProblem(undefined);
      return undefined;
    } catch (error) {
      return explainChange(error);
    }
  };

  const complete = async (task: Task, completed: boolean) => {
    setSaid("");
    setTasks((shown) => merge(shown, [{ ...task, completed }]));
    try {
      const changed = await update(task.id, { completed });
      setTasks((shown) => merge(shown, [changed]));
      setSaid(completed ? "Task completed" : "Task open again");
      setProblem(undefined);
    } catch (error) {
      setTasks((shown) => merge(shown, [task]));
      setProblem(explainChange(error));
    }
  };

  const rename = async (task: Task, newTitle: string) => {
    setSaid("");
    try {
      const changed = await update(task.id, { title: newTitle });
      setTasks((shown) => merge(shown, [changed]));
      setSaid("Task renamed");
      setProblem(undefined);
      return undefined;
    } catch (error) {
      return explainChange(error)?.message ?? "";
    }
  };

  const removeDoomed = async (task: Task) => {
    setSaid("");
    try {
      await remove(task.id);
      setTasks((shown) => shown?.filter(({ id }) => id !== task.id));
      setSaid("Task deleted");
      setProblem(undefined);
      return true;
    } catch (error) {
      setProblem(explainChange(error));
      return false;
    }
  };

  const closeDialog = (deleted: boolean) => {
    setDoomed(undefined);
    if (deleted) {
      // The button that had the focus went with the task.
      heading.current?.focus();
    }
  };

  return (
    <section className="card" aria-labelledby="tasks">
      <h2 id="tasks" ref={heading} tabIndex={-1}>
        {title}
      </h2>
      {may.Create && <NewTaskForm onAdd={add} onReload={() => void read()} />}
      <div role="alert">{problem && <ProblemText problem={problem} onReload={() => void read()} />}</div>
      <p role="status" className="status">
        {reading ? "Loading tasks…" : said}
      </p>
      {tasks?.length === 0 && <p>{may.Create ? "No tasks yet. Add the first one above." : "No tasks yet."}</p>}
      {tasks && tasks.length > 0 && (
        <ul className="tasks" aria-labelledby="tasks">
          {tasks.map((task) => (
            <TaskItem
              key={task.id}
              task={task}
              may={may}
              onComplete={(completed) => complete(task, completed)}
              onRename={(newTitle) => rename(task, newTitle)}
              onDelete={() => setDoomed(task)}
            />
          ))}
        </ul>
      )}
      {next && (
        <button type="button" className="secondary" aria-disabled={reading} onClick={() => reading || void readMore()}>
          Show more
        </button>
      )}
      {doomed && <DeleteDialog task={doomed} onDelete={() => removeDoomed(doomed)} onClose={closeDialog} />}
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
  /** Resolves to what went wrong, or to nothing. */
  onAdd: (title: string) => Promise<Problem | undefined>;
  onReload: () => void;
};

/** No limits of its own on a title: the service counts characters, a browser UTF-16 units. */
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
    const found = await onAdd(title);
    setProblem(found);
    if (!found) {
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

/** Both lists by id, oldest first; of the same task, the later word counts. */
function merge(shown: Task[] = [], news: Task[]): Task[] {
  const byId = new Map(shown.map((task) => [task.id, task]));
  for (const task of news) {
    byId.set(task.id, task);
  }
  return [...byId.values()].sort((one, other) => one.id - other.id);
}
