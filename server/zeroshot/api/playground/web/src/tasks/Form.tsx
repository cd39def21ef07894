import type { FormField, Value, Values } from "./form";

interface Props {
  fields: FormField[];
  values: Values;
  /** The field the server complained about, as a path: `options.1`. */
  errorField: string | null;
  errorText: string;
  onChange: (values: Values) => void;
}

export function Form({ fields, values, errorField, errorText, onChange }: Props) {
  const wrong = errorField?.split(".")[0] ?? null;
  const show = (field: FormField) => (
    <Field
      key={field.name}
      field={field}
      value={values[field.name] ?? ""}
      error={field.name === wrong ? errorText : null}
      onChange={(value) => onChange({ ...values, [field.name]: value })}
    />
  );
  const settings = fields.filter((field) => !field.isInput);
  return (
    <>
      {fields.filter((field) => field.isInput).map(show)}
      {settings.length > 0 && (
        <details class="more" open={settings.some(({ name }) => name === wrong)}>
          <summary>Settings</summary>
          <div class="more-fields">{settings.map(show)}</div>
        </details>
      )}
    </>
  );
}

interface FieldProps {
  field: FormField;
  value: Value;
  error: string | null;
  onChange: (value: Value) => void;
}

function Field({ field, value, error, onChange }: FieldProps) {
  const id = `field-${field.name}`;
  const isSwitch = field.control === "switch";
  return (
    <div class={isSwitch ? "field field-switch" : "field"}>
      <label class="label" for={id}>
        {field.title}
        {!field.isRequired && field.isInput && <span class="optional">optional</span>}
      </label>
      <Control id={id} field={field} value={value} isWrong={error !== null} onChange={onChange} />
      <p class="hint" id={`${id}-hint`}>
        {field.description}
        {field.control === "list" && " One a line."}
      </p>
      {error !== null && <p class="field-error">{error}</p>}
    </div>
  );
}

function Control({ id, field, value, isWrong, onChange }: Omit<FieldProps, "error"> & { id: string; isWrong: boolean }) {
  const common = { id, "aria-describedby": `${id}-hint`, "aria-invalid": isWrong || undefined, name: field.name };
  const text = String(value);
  if (field.control === "switch")
    return <input {...common} type="checkbox" role="switch" checked={value === true} onChange={(event) => onChange(event.currentTarget.checked)} />;
  if (field.control === "choice")
    return (
      <select {...common} value={text} onChange={(event) => onChange(event.currentTarget.value)}>
        {field.options.map((option) => (
          <option key={option}>{option}</option>
        ))}
      </select>
    );
  if (field.control === "text" || field.control === "list")
    return <textarea {...common} class="voice" rows={field.control === "list" ? 3 : 2} value={text} onInput={(event) => onChange(event.currentTarget.value)} />;
  const isNumber = field.control === "number" || field.control === "integer";
  return <input {...common} type="text" inputMode={isNumber ? "decimal" : undefined} class={isNumber ? "number" : undefined} placeholder={isNumber && text === "" ? "random" : undefined} value={text} onInput={(event) => onChange(event.currentTarget.value)} />;
}
