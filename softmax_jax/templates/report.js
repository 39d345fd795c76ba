// A click on a column's head sorts the table by it; a second click turns the order round.
// Numbers are compared as numbers; what is missing comes last either way.
function sort(head) {
  const body = head.closest("table").tBodies[0];
  const sign = head.ariaSort === "ascending" ? -1 : 1;
  const key = (row) => {
    const cell = row.cells[head.cellIndex];
    return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
  };
  const compare = (a, b) => {
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
  };
  const rows = [...body.rows].sort((a, b) => compare(key(a), key(b)));
  for (const other of head.parentElement.cells) other.ariaSort = "none";
  head.ariaSort = sign === 1 ? "ascending" : "descending";
  body.append(...rows);
}
for (const button of document.querySelectorAll("table.sortable [role=button]")) {
  button.addEventListener("click", () => sort(button.closest("th")));
  button.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      sort(button.closest("th"));
    }
  });
}
