"use strict";
// Shows the entries a page at a time, so that tens of thousands of them stay quick. Everything
// from the data becomes a text node, never markup.
(() => {
  const entries = JSON.parse(document.getElementById("data").textContent).entries;
  const maxPrinted = 1000; // rows of a table on paper: a browser takes minutes to lay tens of thousands out
  const number = new Intl.NumberFormat("en-US");

  const el = (tag, name, ...children) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    node.append(...children);
    return node;
  };
  const value = (v) => (v === null ? el("span", "null", "NULL") : el("bdi", "", v));
  const link = ({ id, url }) => {
    if (!url) return el("bdi", "id", id);
    const a = el("a", "id", id);
    a.href = url;
    a.target = "_blank";
    a.rel = "noopener noreferrer";
    return a;
  };
  const change = (c, field) => el("div", c.field === field ? "change match" : "change",
    el("code", "", c.field),
    el("span", "value", value(c.from), " ", el("span", "arrow", "→"), " ", value(c.to)));

  // copy puts a command into the clipboard; where the browser does not let it, the command is selected.
  const copy = async (code) => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      return "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      return "Selected: press Ctrl+C";
    }
  };
  const addCopy = (command) => {
    const code = command.querySelector("code");
    const button = el("button", "copy", "Copy");
    button.type = "button";
    button.ariaLabel = "Copy " + code.textContent;
    button.addEventListener("click", async () => {
      button.textContent = button.ariaLabel = await copy(code);
      setTimeout(() => {
        button.textContent = "Copy";
        button.ariaLabel = "Copy " + code.textContent;
      }, 2000);
    });
    command.append(button);
    return command;
  };
  // A line ends before a flag, but not between a flag and its value.
  const command = (text) => addCopy(el("div", "command", el("code", "scroll",
    ...text.split(/ (?=--)/).flatMap((part, i) => (i ? [" ", el("span", "", part)] : [el("span", "", part)])))));

  // shape is how a table differs from another: the changes it shows, and whether messages too.
  const row = (e, shape, field) => {
    const outcome = el("td", "", el("span", "outcome " + e.outcome, e.outcome), el("code", "", e.reason));
    if (e.note) outcome.append(el("small", "", e.note));
    if (e.lowered) outcome.append(el("small", "", "lowers access"));
    if (e.raised) outcome.append(el("small", "", "raises access"));
    const what = el("td", "", ...(e.changes ?? []).filter(shape.change).map((c) => change(c, field)));
    if (e.wrong) what.append(el("p", "message", e.wrong));
    if (shape.messages) {
      if (e.event) what.append(el("p", "message", "named by " + e.event));
      if (e.error) what.append(el("p", "message", e.error));
      for (const w of e.warnings ?? []) what.append(el("p", "message", el("code", "", w.code), " ", w.message));
      if (e.next) what.append(el("p", "message", e.nextDoes + ":"), command(e.next));
    }
    return el("tr", "",
      el("td", "", el("b", "", el("bdi", "", e.name)), el("bdi", "id", e.org)), outcome, what,
      el("td", "", link(e.subscription), link(e.customer)));
  };

  // table pages through rows inside a section and returns a function that shows others.
  const table = (section, shape) => {
    const body = section.querySelector(".entries tbody");
    const pager = section.querySelector(".pager");
    const count = el("span", "count");
    const back = el("button", "", "Previous");
    const next = el("button", "", "Next");
    const size = el("select", "", ...["10", "25", "100", "1000", "all"].map((n) => el("option", "", n)));
    back.type = next.type = "button";
    count.role = "status";
    size.name = "size";
    pager.append(count, el("label", "", "Show ", size), back, next);
    let rows = [], field = "", start = 0, printing = false;
    section.querySelector(".rest")?.remove(); // the rows for where scripts do not run

    const perPage = () => {
      if (printing) return maxPrinted;
      return size.value === "all" ? Math.max(rows.length, 1) : Number(size.value);
    };
    const show = () => {
      const per = perPage();
      start = Math.min(start, Math.max(0, Math.floor((rows.length - 1) / per) * per));
      const shown = rows.slice(start, start + per);
      body.replaceChildren(...shown.map((e) => row(e, shape, field)));
      if (!shown.length) {
        const cell = el("td", "empty", "Nothing matches; clear the filters to see everything.");
        cell.colSpan = 4;
        body.append(el("tr", "", cell));
      }
      count.textContent = shown.length
        ? `${number.format(start + 1)} to ${number.format(start + shown.length)} of ${number.format(rows.length)} organizations`
        : "0 organizations";
      if (printing && rows.length > shown.length) count.textContent += `; ${number.format(rows.length - shown.length)} are not printed, the CSV has every change`;
      back.disabled = start === 0;
      next.disabled = start + per >= rows.length;
    };
    const turn = (pages) => {
      start = Math.max(0, start + pages * Number(size.value));
      show();
    };
    back.addEventListener("click", () => turn(-1));
    next.addEventListener("click", () => turn(1));
    size.addEventListener("change", show);
    let before = 0;
    window.addEventListener("beforeprint", () => {
      before = start;
      start = 0;
      printing = true;
      show();
    });
    window.addEventListener("afterprint", () => {
      start = before;
      printing = false;
      show();
    });
    return (chosen, ofField = "") => {
      rows = chosen;
      field = ofField;
      start = 0;
      show();
    };
  };

  const text = (e) => [e.org, e.name, e.outcome, e.reason, e.event, e.wrong, e.error,
    e.lowered ? "lowers access" : "", e.raised ? "raises access" : "", e.subscription.id, e.customer.id,
    ...(e.changes ?? []).flatMap((c) => [c.field, c.from ?? "NULL", c.to ?? "NULL"]),
    ...(e.warnings ?? []).flatMap((w) => [w.code, w.message])].join("\n").toLowerCase();
  const haystack = entries.map(text);

  for (const group of document.querySelectorAll("#finance .group")) {
    table(group, { change: (c) => c.finance, messages: false })(entries.filter((e) => e.group === group.dataset.group));
  }

  const section = document.getElementById("changes");
  const form = section.querySelector(".filters");
  const showChanges = table(section, { change: () => true, messages: true });
  const filter = () => {
    const words = form.query.value.toLowerCase().split(/\s+/).filter(Boolean);
    const { outcome, reason, field } = form;
    const access = form.access?.value; // absent where no access changed
    showChanges(entries.filter((e, i) =>
      (!outcome.value || e.outcome === outcome.value) &&
      (!access || e[access]) &&
      (!reason.value || e.reason === reason.value) &&
      (!field.value || (e.changes ?? []).some((c) => c.field === field.value)) &&
      words.every((word) => haystack[i].includes(word))), field.value);
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter)); // after the fields are reset

  // What is counted elsewhere on the page leads to its organizations.
  for (const button of document.querySelectorAll("button.link")) {
    button.addEventListener("click", () => {
      form.reset();
      for (const name of ["query", "reason", "field"]) form[name].value = button.dataset[name] ?? "";
      filter();
      section.scrollIntoView({ block: "start" });
    });
  }

  for (const command of document.querySelectorAll(".command:not(:has(.copy))")) addCopy(command);

  // Paper has no way to unfold anything.
  let unfolded = [];
  window.addEventListener("beforeprint", () => {
    unfolded = [...document.querySelectorAll("details:not([open])")];
    for (const details of unfolded) details.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const details of unfolded) details.open = false;
  });

  // The latest runs stand at the end of the chart.
  for (const chart of document.querySelectorAll(".scroll:has(.chart)")) chart.scrollLeft = chart.scrollWidth;

  form.hidden = false;
  document.documentElement.classList.add("scripted");
  filter();
})();
