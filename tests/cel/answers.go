package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"

	"github.com/google/cel-go/cel"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

// corpus is the file of expressions.
type corpus struct {
	// Values of the variables, by name of the input.
	Inputs map[string]map[string]json.RawMessage `json:"inputs"`
	Groups []group                               `json:"groups"`
}

type group struct {
	Name        string   `json:"name"`
	Input       string   `json:"input"`
	Expressions []string `json:"expressions"`
}

// answer is one of value, error and refused.
type answer struct {
	Group      string `json:"group"`
	Input      string `json:"input,omitempty"`
	Expression string `json:"expression"`
	Value      string `json:"value,omitempty"`
	Error      string `json:"error,omitempty"`
	Refused    bool   `json:"refused,omitempty"`
	Message    string `json:"message,omitempty"`
}

func answers(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var read corpus
	if err := yaml.UnmarshalStrict(text, &read); err != nil {
		return nil, err
	}
	env, err := environmentOf()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString("[\n")
	for position, of := range read.Groups {
		variables, err := activation(read.Inputs[of.Input])
		if err != nil {
			return nil, err
		}
		for index, expression := range of.Expressions {
			found := evaluate(env, expression, variables)
			found.Group, found.Input = of.Name, of.Input
			line, err := encode(found)
			if err != nil {
				return nil, err
			}
			out.Write(line)
			if position+1 < len(read.Groups) || index+1 < len(of.Expressions) {
				out.WriteString(",")
			}
			out.WriteString("\n")
		}
	}
	out.WriteString("]\n")
	return out.Bytes(), nil
}

func encode(of answer) ([]byte, error) {
	var line bytes.Buffer
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(of)
	return bytes.TrimRight(line.Bytes(), "\n"), err
}

// activation reads JSON as the API server reads objects: whole numbers are int64.
func activation(input map[string]json.RawMessage) (map[string]any, error) {
	variables := map[string]any{}
	for _, name := range []string{"object", "oldObject", "params", "run", "request", "namespaceObject", "agent", "action"} {
		variables[name] = nil
	}
	for name, text := range input {
		var inner string
		if err := json.Unmarshal(text, &inner); err == nil {
			text = json.RawMessage(inner)
		}
		var value any
		if err := utiljson.Unmarshal(text, &value); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		variables[name] = value
	}
	return variables, nil
}

func evaluate(env *cel.Env, expression string, variables map[string]any) answer {
	ast, issues := env.Compile(expression)
	if issues.Err() != nil {
		return answer{Expression: expression, Refused: true, Message: issues.Err().Error()}
	}
	program, err := env.Program(ast)
	if err != nil {
		return answer{Expression: expression, Refused: true, Message: err.Error()}
	}
	value, _, err := program.Eval(variables)
	if err != nil {
		return answer{Expression: expression, Error: kind(err.Error()), Message: err.Error()}
	}
	return answer{Expression: expression, Value: printed(value)}
}

var kinds = []struct {
	pattern *regexp.Regexp
	kind    string
}{
	{regexp.MustCompile(`no such key`), "no-such-key"},
	{regexp.MustCompile(`no such overload|no matching overload|unexpected type`), "no-such-overload"},
	{regexp.MustCompile(`index out of (bounds|range)`), "out-of-bounds"},
	{regexp.MustCompile(`overflow|timestamp range|range error`), "overflow"},
	{regexp.MustCompile(`(division|modulus) by zero`), "division-by-zero"},
}

// kind sorts an error's text into Kustody's kinds.
func kind(message string) string {
	for _, one := range kinds {
		if one.pattern.MatchString(message) {
			return one.kind
		}
	}
	return "invalid"
}
